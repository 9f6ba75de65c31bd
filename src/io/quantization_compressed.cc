// compressed-tensors, format "float-quantized", as llm-compressor writes it.
#include <nlohmann/json.hpp>

#include "io/quantization_reader.h"

namespace tandem::io {
namespace {

using nlohmann::json;

enum class Activations { kNone, kStaticTensor, kDynamic };

base::Status check_float8(const JsonObject& object) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t bits, object.integer("num_bits", 1, 64));
  TANDEM_ASSIGN_OR_RETURN(const std::string type, object.string("type"));
  TANDEM_ASSIGN_OR_RETURN(const bool symmetric, object.boolean_or("symmetric", true));
  if (bits != 8 || type != "float" || !symmetric)
    return base::unsupported(
        "{}: expected num_bits 8, type float and symmetric scales, got {}, {} and {}; {} can be "
        "loaded",
        object.where(), bits, type, symmetric ? "symmetric" : "asymmetric", kSupportedQuantization);
  return {};
}

// Whether one scale holds for the whole weight; otherwise one per output channel.
base::Result<bool> read_weights(const JsonObject& group) {
  TANDEM_ASSIGN_OR_RETURN(const JsonObject weights, group.object("weights"));
  TANDEM_RETURN_IF_ERROR(check_float8(weights));
  TANDEM_ASSIGN_OR_RETURN(const std::string strategy, weights.string_or("strategy", "tensor"));
  if (strategy != "tensor" && strategy != "channel")
    return base::unsupported("{}: strategy: expected tensor or channel, got {}", weights.where(),
                             describe_json(strategy));
  return strategy == "tensor";
}

base::Result<Activations> read_activations(const JsonObject& group) {
  if (!group.has("input_activations")) return Activations::kNone;
  TANDEM_ASSIGN_OR_RETURN(const JsonObject activations, group.object("input_activations"));
  TANDEM_RETURN_IF_ERROR(check_float8(activations));
  TANDEM_ASSIGN_OR_RETURN(const bool dynamic, activations.boolean_or("dynamic", false));
  TANDEM_ASSIGN_OR_RETURN(const std::string strategy, activations.string_or("strategy", "tensor"));
  const bool known = strategy == "tensor" || (dynamic && strategy == "token");
  if (!known)
    return base::unsupported("{}: strategy: expected tensor, or token with dynamic scales, got {}",
                             activations.where(), describe_json(strategy));
  return dynamic ? Activations::kDynamic : Activations::kStaticTensor;
}

QuantizationLayout layout_of(bool scalar_weight_scale, Activations activations) {
  QuantizationLayout layout;
  // One format per pair of scalars; everything else has a scale per channel, where a single scale
  // of the file stands for all channels.
  layout.format = scalar_weight_scale && activations != Activations::kDynamic
                      ? WeightFormat::kFp8PerTensor
                      : WeightFormat::kFp8PerChannelPerToken;
  layout.needs_input_scale = activations == Activations::kStaticTensor;
  layout.allows_input_scale = layout.needs_input_scale;
  layout.loose_scales = true;
  layout.scalar_weight_scale = scalar_weight_scale;
  return layout;
}

base::Status check_targets(const JsonObject& group) {
  TANDEM_ASSIGN_OR_RETURN(const auto targets, group.strings_or_empty("targets"));
  if (targets.size() == 1 && targets[0] == "Linear") return {};
  return base::unsupported("{}: targets: expected [\"Linear\"], got {}", group.where(),
                           targets.empty() ? "none" : describe_json(targets[0]));
}

}  // namespace

base::Result<QuantizationConfig> read_compressed_tensors_config(const JsonObject& object) {
  TANDEM_ASSIGN_OR_RETURN(const std::string format, object.string("format"));
  if (format != "float-quantized")
    return base::unsupported("{}: format: expected float-quantized, got {}; {} can be loaded",
                             object.where(), describe_json(format), kSupportedQuantization);
  TANDEM_ASSIGN_OR_RETURN(const JsonObject groups, object.object("config_groups"));
  const json& all = *object.find("config_groups");
  if (all.size() != 1)
    return base::unsupported("{}: expected one group (mixed precision is not supported), got {}",
                             groups.where(), all.size());
  TANDEM_ASSIGN_OR_RETURN(const JsonObject group, groups.object(all.begin().key().c_str()));
  TANDEM_RETURN_IF_ERROR(check_targets(group));
  TANDEM_ASSIGN_OR_RETURN(const bool scalar, read_weights(group));
  TANDEM_ASSIGN_OR_RETURN(const Activations activations, read_activations(group));

  QuantizationConfig config;
  config.info.quantized = true;
  config.info.algorithm = "compressed-tensors";
  config.info.weight_only = activations == Activations::kNone;
  config.layout = layout_of(scalar, activations);
  TANDEM_ASSIGN_OR_RETURN(config.info.kv_cache_fp8, read_kv_cache_scheme(object));
  TANDEM_ASSIGN_OR_RETURN(config.info.exclude_modules, read_module_list(object, "ignore"));
  TANDEM_ASSIGN_OR_RETURN(
      config.exclusions,
      ModulePatterns::compressed(config.info.exclude_modules, object.where() + ": ignore"));
  return config;
}

}  // namespace tandem::io
