// ModelOpt's two JSON forms.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/quantization_reader.h"

namespace tandem::io {
namespace {

using nlohmann::json;

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return text;
}

base::Result<QuantizationLayout> layout_of(const JsonObject& object, const std::string& algorithm) {
  if (algorithm == "FP8")
    return QuantizationLayout{.format = WeightFormat::kFp8PerTensor,
                              .needs_input_scale = true,
                              .allows_input_scale = true};
  if (algorithm == "FP8_PB_WO") return QuantizationLayout{.format = WeightFormat::kFp8Block};
  if (algorithm == "FP8_PER_CHANNEL_PER_TOKEN")
    return QuantizationLayout{.format = WeightFormat::kFp8PerChannelPerToken};
  return base::unsupported("{}: quant_algo: expected {}, got {}", object.where(),
                           kSupportedQuantization, algorithm.substr(0, 100));
}

base::Result<bool> is_fp8_kv(const JsonObject& object, const char* key, const std::string& name) {
  const std::string algorithm = upper(name);
  if (algorithm.empty() || algorithm == "NONE") return false;
  if (algorithm == "FP8") return true;
  return base::unsupported("{}: {}: expected FP8 or null, got {}", object.where(), key,
                           describe_json(name));
}

base::Result<QuantizationConfig> make_config(const JsonObject& object, const char* list_key) {
  QuantizationConfig config;
  TANDEM_ASSIGN_OR_RETURN(const std::string algorithm, object.string("quant_algo"));
  config.info.algorithm = upper(algorithm);
  config.info.quantized = true;
  TANDEM_ASSIGN_OR_RETURN(config.layout, layout_of(object, config.info.algorithm));
  config.info.weight_only = config.layout.format == WeightFormat::kFp8Block;
  TANDEM_ASSIGN_OR_RETURN(config.info.exclude_modules, read_module_list(object, list_key));
  config.exclusions = ModulePatterns::modelopt(config.info.exclude_modules);
  return config;
}

// {"num_bits": 8, "type": "float"}: the only thing FP8 weights and activations can say.
base::Status check_fp8_scheme(const JsonObject& object) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t bits, object.integer_or("num_bits", 8, 1, 64));
  TANDEM_ASSIGN_OR_RETURN(const std::string type, object.string_or("type", "float"));
  if (bits != 8 || type != "float")
    return base::unsupported("{}: expected num_bits 8 and type float, got {} and {}",
                             object.where(), bits, type);
  return {};
}

// An export whose groups name no input_activations quantizes weights only.
base::Status read_groups(const JsonObject& object, QuantizationConfig& config) {
  if (!object.has("config_groups")) return {};
  TANDEM_ASSIGN_OR_RETURN(const JsonObject groups, object.object("config_groups"));
  size_t with_activations = 0;
  size_t count = 0;
  for (const auto& [name, unused] : object.find("config_groups")->items()) {
    TANDEM_ASSIGN_OR_RETURN(const JsonObject group, groups.object(name.c_str()));
    ++count;
    if (group.has("weights")) {
      TANDEM_ASSIGN_OR_RETURN(const JsonObject weights, group.object("weights"));
      TANDEM_RETURN_IF_ERROR(check_fp8_scheme(weights));
    }
    if (!group.has("input_activations")) continue;
    TANDEM_ASSIGN_OR_RETURN(const JsonObject activations, group.object("input_activations"));
    TANDEM_RETURN_IF_ERROR(check_fp8_scheme(activations));
    ++with_activations;
  }
  if (count == 0) return {};
  if (with_activations != 0 && with_activations != count)
    return base::unsupported(
        "{}: expected input_activations in all groups or in none, got {} of {}", groups.where(),
        with_activations, count);
  if (with_activations == 0) {
    config.info.weight_only = true;
    config.layout.needs_input_scale = false;
  }
  return {};
}

}  // namespace

base::Result<bool> read_kv_cache_scheme(const JsonObject& object) {
  constexpr const char* kKey = "kv_cache_scheme";
  const json* value = object.find(kKey);
  if (value == nullptr) return false;
  if (value->is_string()) return is_fp8_kv(object, kKey, value->get<std::string>());
  TANDEM_ASSIGN_OR_RETURN(const JsonObject scheme, object.object(kKey));
  TANDEM_RETURN_IF_ERROR(check_fp8_scheme(scheme));
  return true;
}

base::Result<QuantizationConfig> read_hf_quant_config(const JsonObject& object) {
  TANDEM_ASSIGN_OR_RETURN(const JsonObject inner, object.object("quantization"));
  TANDEM_ASSIGN_OR_RETURN(QuantizationConfig config, make_config(inner, "exclude_modules"));
  TANDEM_ASSIGN_OR_RETURN(const std::string kv, inner.string_or("kv_cache_quant_algo", ""));
  TANDEM_ASSIGN_OR_RETURN(config.info.kv_cache_fp8, is_fp8_kv(inner, "kv_cache_quant_algo", kv));
  return config;
}

base::Result<QuantizationConfig> read_modelopt_config(const JsonObject& object) {
  if (object.has("quantization")) return read_hf_quant_config(object);
  TANDEM_ASSIGN_OR_RETURN(QuantizationConfig config, make_config(object, "ignore"));
  TANDEM_RETURN_IF_ERROR(read_groups(object, config));
  TANDEM_ASSIGN_OR_RETURN(config.info.kv_cache_fp8, read_kv_cache_scheme(object));
  return config;
}

}  // namespace tandem::io
