// Weights made from the configs alone (--load-format dummy): seeded, of sane sizes, cheap to make.
// For measuring: the arithmetic and the bytes are those of the real model, the text is noise.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/status.h"
#include "io/model_config.h"
#include "io/quantization_config.h"
#include "io/tensor_table.h"

namespace tandem::io {

// Every tensor the loader asks for, in the formats `quantization` names, with scales that keep
// activations inside E4M3. Refused where the machine has not so much memory.
base::Result<TensorTable> make_dummy_weights(const std::filesystem::path& dir,
                                             const ModelConfig& config,
                                             const QuantizationConfig& quantization, uint64_t seed);

}  // namespace tandem::io
