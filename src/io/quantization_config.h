// What a model folder says of its quantization: ModelOpt in both JSON forms, compressed-tensors.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/module_patterns.h"

namespace tandem::io {

// How one Linear is stored.
enum class WeightFormat {
  kBF16,
  kFp8PerTensor,           // weight_scale F32 scalar; input_scale F32 scalar (static W8A8)
  kFp8PerChannelPerToken,  // weight_scales [out]; activations scaled per row at run time
  kFp8Block,               // weight_scales [ceil(out/128), ceil(in/128)]; weight-only
};

// What the checkpoint says of its quantization.
struct QuantizationInfo {
  bool quantized = false;
  std::string algorithm;  // "FP8", "FP8_PB_WO", "FP8_PER_CHANNEL_PER_TOKEN", "compressed-tensors"
  bool kv_cache_fp8 = false;  // the checkpoint asks for an FP8 KV cache
  bool weight_only = false;   // no input scales are used at run time
  std::vector<std::string> exclude_modules;
};

// Side of the square blocks of kFp8Block.
inline constexpr int64_t kFp8BlockSize = 128;

// How the scale tensors of a quantized Linear look.
struct QuantizationLayout {
  WeightFormat format = WeightFormat::kBF16;  // of modules the list does not exclude
  bool needs_input_scale = false;             // static activations
  bool allows_input_scale = false;            // may be there, is not needed
  // compressed-tensors: scales may be BF16 or F16 and one scalar may stand for all channels.
  bool loose_scales = false;
  bool scalar_weight_scale = false;
};

struct QuantizationConfig {
  QuantizationInfo info;
  QuantizationLayout layout;
  ModulePatterns exclusions;
  std::string source;  // the file the list is in, for messages

  // Whether the list excludes a canonical module ("layers.3.mlp.up_proj", "lm_head").
  bool excludes(std::string_view canonical_module) const {
    return exclusions.matches(canonical_module);
  }
};

// Reads config.json's quantization_config and hf_quant_config.json; none, one, or both (which must
// agree). Formats Tandem does not run are refused with the value and the supported list.
// `hf_overrides` changes config.json (config_json.h).
base::Result<QuantizationConfig> read_quantization_config(const std::filesystem::path& dir,
                                                          std::string_view hf_overrides = {});

}  // namespace tandem::io
