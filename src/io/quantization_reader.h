// Inside of read_quantization_config: one reader per format.
#pragma once

#include "io/json.h"
#include "io/quantization_config.h"

namespace tandem::io {

inline constexpr const char* kSupportedQuantization =
    "FP8, FP8_PB_WO, FP8_PER_CHANNEL_PER_TOKEN (ModelOpt) or float-quantized 8-bit "
    "(compressed-tensors)";

// hf_quant_config.json: {"quantization": {...}}.
base::Result<QuantizationConfig> read_hf_quant_config(const JsonObject& object);
// config.json's quantization_config of quant_method "modelopt"; the nested form is accepted too.
base::Result<QuantizationConfig> read_modelopt_config(const JsonObject& object);
// quant_method "compressed-tensors".
base::Result<QuantizationConfig> read_compressed_tensors_config(const JsonObject& object);

// A list of module names of bounded length, or empty.
base::Result<std::vector<std::string>> read_module_list(const JsonObject& object, const char* key);

// kv_cache_scheme: null, the name of an algorithm, or {"num_bits": 8, "type": "float"}.
base::Result<bool> read_kv_cache_scheme(const JsonObject& object);

}  // namespace tandem::io
