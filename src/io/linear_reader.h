// One Linear of a checkpoint: its weight, its scales, and whether list and tensors agree.
#pragma once

#include <vector>

#include "core/buffer.h"
#include "io/checkpoint.h"
#include "io/quantization_config.h"
#include "io/tensor_requirements.h"
#include "io/tensor_table.h"

namespace tandem::io {

// Scales that are not scalars are copied to F32 into `owned`, which must outlive the result.
base::Result<LinearWeights> read_linear(TensorTable& table, const QuantizationConfig& quantization,
                                        const RequiredLinear& linear,
                                        std::vector<core::Buffer>& owned);

// A tensor of the expected dtype and shape: `WHERE: expected BF16 [2, 3], got F32 [2, 3]`.
base::Status check_tensor(const TensorTable& table, std::string_view canonical_name,
                          const core::TensorView& view, core::DType dtype,
                          const core::Shape& shape);

// A scale must be finite, positive, normal and no sentinel of a scale that was never filled.
base::Status check_scale_value(const std::string& where, float value);

// A scalar F32 scale (also BF16 or F16 when `loose`) of shape [] or [1], checked.
base::Result<float> read_scalar_scale(const TensorTable& table,
                                      const Checkpoint::StoredTensor& tensor, bool loose);

// k_scale and v_scale of a target's layers; the caller refuses those of others as unexpected.
base::Result<std::vector<Checkpoint::KvScales>> read_kv_scales(
    TensorTable& table, const QuantizationConfig& quantization, int64_t num_layers);

}  // namespace tandem::io
