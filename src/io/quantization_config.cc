#include "io/quantization_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/config_json.h"
#include "io/quantization_reader.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::vector<std::string> sorted(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

std::string shown(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  std::string text;
  for (size_t i = 0; i < names.size() && i < kMost; ++i) text += (i == 0 ? "" : ", ") + names[i];
  return "[" + text + (names.size() > kMost ? ", ...]" : "]");
}

// The first entry of one list that the other lacks.
std::string only_in_one(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<std::string> difference;
  std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(),
                                std::back_inserter(difference));
  return shown(difference);
}

// Both files, read on their own, must say the same.
base::Status check_agreement(const QuantizationConfig& config, const QuantizationConfig& hf) {
  if (config.info.algorithm != hf.info.algorithm)
    return base::invalid("{}: quant_algo: expected {} as {} says, got {}", hf.source,
                         config.info.algorithm, config.source, hf.info.algorithm);
  if (config.info.kv_cache_fp8 != hf.info.kv_cache_fp8)
    return base::invalid("{}: kv_cache_quant_algo: expected {} as {} says, got {}", hf.source,
                         config.info.kv_cache_fp8 ? "FP8" : "null", config.source,
                         hf.info.kv_cache_fp8 ? "FP8" : "null");
  const auto ignore = sorted(config.info.exclude_modules);
  const auto exclude = sorted(hf.info.exclude_modules);
  if (ignore != exclude)
    return base::invalid(
        "{}: exclude_modules: expected the same list as `ignore` in {}, got lists that differ in "
        "{}",
        hf.source, config.source, only_in_one(ignore, exclude));
  return {};
}

base::Result<QuantizationConfig> read_inner(const JsonObject& object) {
  // ModelOpt writes quant_method; other methods always name themselves.
  TANDEM_ASSIGN_OR_RETURN(const std::string method, object.string_or("quant_method", "modelopt"));
  if (method == "modelopt") return read_modelopt_config(object);
  if (method == "compressed-tensors") return read_compressed_tensors_config(object);
  return base::unsupported(
      "{}: quant_method: expected modelopt or compressed-tensors, got {}; {} "
      "can be loaded",
      object.where(), method.substr(0, 100), kSupportedQuantization);
}

// quantization_config at the top level, or inside text_config as some exporters leave it.
base::Result<std::optional<QuantizationConfig>> read_from_config(const fs::path& dir,
                                                                 std::string_view hf_overrides) {
  TANDEM_ASSIGN_OR_RETURN(const json root, read_config_json(dir, hf_overrides));
  TANDEM_ASSIGN_OR_RETURN(const JsonObject top,
                          JsonObject::of(root, (dir / "config.json").string()));
  JsonObject holder = top;
  if (!top.has("quantization_config") && top.has("text_config")) {
    TANDEM_ASSIGN_OR_RETURN(holder, top.object("text_config"));
  }
  if (!holder.has("quantization_config")) return std::nullopt;
  TANDEM_ASSIGN_OR_RETURN(const JsonObject inner, holder.object("quantization_config"));
  TANDEM_ASSIGN_OR_RETURN(QuantizationConfig config, read_inner(inner));
  config.source = inner.where();
  return config;
}

base::Result<std::optional<QuantizationConfig>> read_from_hf_file(const fs::path& dir) {
  const fs::path path = dir / "hf_quant_config.json";
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return std::nullopt;
  TANDEM_ASSIGN_OR_RETURN(const json root, read_json_file(path));
  TANDEM_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::of(root, path.string()));
  TANDEM_ASSIGN_OR_RETURN(QuantizationConfig config, read_hf_quant_config(object));
  config.source = path.string();
  return config;
}

}  // namespace

base::Result<std::vector<std::string>> read_module_list(const JsonObject& object, const char* key) {
  constexpr size_t kMostEntries = 10'000;
  constexpr size_t kLongestEntry = 1024;
  TANDEM_ASSIGN_OR_RETURN(auto names, object.strings_or_empty(key));
  if (names.size() > kMostEntries)
    return base::invalid("{}: {}: expected at most {} entries, got {}", object.where(), key,
                         kMostEntries, names.size());
  for (const std::string& name : names)
    if (name.empty() || name.size() > kLongestEntry)
      return base::invalid("{}: {}: expected module names of 1 to {} bytes, got one of {}",
                           object.where(), key, kLongestEntry, name.size());
  return names;
}

base::Result<QuantizationConfig> read_quantization_config(const fs::path& dir,
                                                          std::string_view hf_overrides) {
  TANDEM_ASSIGN_OR_RETURN(auto config, read_from_config(dir, hf_overrides));
  TANDEM_ASSIGN_OR_RETURN(auto hf, read_from_hf_file(dir));
  if (config && hf) TANDEM_RETURN_IF_ERROR(check_agreement(*config, *hf));
  // config.json's form says more (whether activations are quantized).
  if (config) return *std::move(config);
  if (hf) return *std::move(hf);
  return QuantizationConfig{};
}

}  // namespace tandem::io
