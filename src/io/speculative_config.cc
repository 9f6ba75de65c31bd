#include "io/speculative_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::io {
namespace {

constexpr std::string_view kWhere = "--speculative-config";

constexpr const char* kBatchKey = "num_speculative_tokens_per_batch_size";
constexpr size_t kMaxRanges = 64;
constexpr int64_t kMaxBatch = int64_t{1} << 20;

// Keys of vLLM that have no meaning here.
struct Foreign {
  std::string_view key;
  std::string_view value;  // as JSON text, the only one that says what is done; empty: any
  std::string_view note;   // for keys with any value
};
constexpr std::array<Foreign, 11> kForeign = {{
    {"method", "\"mtp\"", ""},
    {"draft_tensor_parallel_size", "1", ""},
    {"parallel_drafting", "false", ""},
    {"use_local_argmax_reduction", "true", ""},
    {"disable_padded_drafter_batch", "true", ""},
    {"disable_eagle_block_drop", "true", ""},
    {"revision", "null", ""},
    {"kv_cache_dtype", "", "the assistant has no KV cache of its own"},
    {"attention_backend", "", "there is one"},
    {"max_model_len", "", "the assistant reads as far as the target"},
    {"enforce_eager", "", "--enforce-eager switches CUDA graphs off for both"},
}};

constexpr std::array<std::string_view, 9> kKnown = {
    "model",
    "num_speculative_tokens",
    "draft_position_offset",
    "draft_sample_method",
    "rejection_sample_method",
    "synthetic_acceptance_length",
    "synthetic_acceptance_rates",
    kBatchKey,
    "quantization",
};

base::Status check_keys(const nlohmann::json& config, std::vector<std::string>& notes) {
  for (const auto& [key, value] : config.items()) {
    if (std::ranges::find(kKnown, key) != kKnown.end()) continue;
    const auto foreign =
        std::ranges::find_if(kForeign, [&](const Foreign& entry) { return entry.key == key; });
    if (foreign == kForeign.end())
      return base::invalid("{}: expected one of {}, got \"{}\"", kWhere, fmt::join(kKnown, ", "),
                           key.substr(0, 60));
    if (foreign->value.empty())
      notes.push_back(fmt::format("{}: {}: changes nothing: {}", kWhere, key, foreign->note));
    else if (value.dump() != foreign->value)
      return base::unsupported("{}: {}: expected {} (all that Tandem does), got {}", kWhere, key,
                               foreign->value, describe_json(value));
  }
  return {};
}

base::Status read_draft_count(const JsonObject& object, int max_draft_tokens,
                              SpeculativeConfig& config) {
  constexpr const char* kKey = "num_speculative_tokens";
  const nlohmann::json* value = object.find(kKey);
  if (value != nullptr && value->is_string() && value->get<std::string>() == "auto") {
    config.automatic = true;
    config.num_speculative_tokens = max_draft_tokens;
    return {};
  }
  TANDEM_ASSIGN_OR_RETURN(const int64_t count, object.integer_or(kKey, 4, 0, max_draft_tokens));
  config.num_speculative_tokens = static_cast<int>(count);
  return {};
}

base::Status read_sample_method(const JsonObject& object, SpeculativeConfig& config) {
  TANDEM_ASSIGN_OR_RETURN(const std::string method,
                          object.string_or("draft_sample_method", "greedy"));
  if (method != "greedy" && method != "probabilistic")
    return object.mismatch("draft_sample_method", "\"greedy\" or \"probabilistic\"");
  config.draws_drafts = method == "probabilistic";
  return {};
}

base::Status read_synthetic(const JsonObject& object, SpeculativeConfig& config) {
  TANDEM_ASSIGN_OR_RETURN(const std::string method,
                          object.string_or("rejection_sample_method", "standard"));
  if (method != "standard" && method != "synthetic")
    return object.mismatch("rejection_sample_method", "\"standard\" or \"synthetic\"");
  const bool synthetic =
      object.has("synthetic_acceptance_length") || object.has("synthetic_acceptance_rates");
  if (synthetic != (method == "synthetic"))
    return base::invalid(
        "{}: expected rejection_sample_method \"synthetic\" together with "
        "synthetic_acceptance_length or synthetic_acceptance_rates, got only one of them",
        kWhere);
  if (object.has("synthetic_acceptance_length") && object.has("synthetic_acceptance_rates"))
    return base::invalid(
        "{}: expected synthetic_acceptance_length or synthetic_acceptance_rates, got both", kWhere);
  if (object.has("synthetic_acceptance_length")) {
    TANDEM_ASSIGN_OR_RETURN(const double length,
                            object.number_or("synthetic_acceptance_length", 1.0, 1.0,
                                             config.num_speculative_tokens + 1.0));
    config.synthetic_acceptance_length = length;
  }
  if (const nlohmann::json* rates = object.find("synthetic_acceptance_rates")) {
    if (!rates->is_array() || rates->empty() || rates->size() > 64)
      return object.mismatch("synthetic_acceptance_rates", "a list of rates");
    for (const auto& rate : *rates) {
      if (!rate.is_number()) return object.mismatch("synthetic_acceptance_rates", "numbers");
      config.synthetic_acceptance_rates.push_back(rate.get<double>());
    }
  }
  return {};
}

// [[first, last, K], ...]: K may be 0 and never goes beyond num_speculative_tokens. Sizes between
// two ranges, and beyond the last, have the K of the range before them.
base::Status read_ranges(const JsonObject& object, SpeculativeConfig& config) {
  const nlohmann::json* list = object.find(kBatchKey);
  if (list == nullptr) return {};
  if (config.automatic)
    return base::invalid("{}: {}: expected none with \"num_speculative_tokens\": \"auto\"", kWhere,
                         kBatchKey);
  const auto refused = [&] {
    return object.mismatch(kBatchKey,
                           "ranges of batch sizes with their K, rising and apart, such as "
                           "[[1, 8, 4], [9, 32, 1]]");
  };
  if (!list->is_array() || list->empty() || list->size() > kMaxRanges) return refused();
  int64_t before = 0;
  for (const nlohmann::json& entry : *list) {
    const bool numbers =
        entry.is_array() && entry.size() == 3 && std::ranges::all_of(entry, [](const auto& value) {
          return value.is_number_unsigned() && value.template get<uint64_t>() <= kMaxBatch;
        });
    if (!numbers) return refused();
    const auto first = entry[0].get<int64_t>();
    const auto last = entry[1].get<int64_t>();
    if (first <= before || last < first) return refused();
    const auto count = std::min<int64_t>(entry[2].get<int64_t>(), config.num_speculative_tokens);
    config.drafts_from[first] = static_cast<int>(count);
    before = last;
  }
  return {};
}

base::Status read_quantization(const JsonObject& object, SpeculativeConfig& config) {
  constexpr const char* kKey = "quantization";
  if (!object.has(kKey)) return {};
  TANDEM_ASSIGN_OR_RETURN(const std::string name, object.string(kKey));
  if (name != "modelopt" && name != "compressed-tensors" && name != "none")
    return object.mismatch(kKey, "modelopt, compressed-tensors or none");
  config.quantization = name;
  return {};
}

}  // namespace

base::Result<SpeculativeConfig> parse_speculative_config(std::string_view text,
                                                         int max_draft_tokens) {
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json json, parse_json(text, std::string(kWhere)));
  TANDEM_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::of(json, std::string(kWhere)));
  SpeculativeConfig config;
  TANDEM_RETURN_IF_ERROR(check_keys(json, config.notes));
  TANDEM_ASSIGN_OR_RETURN(config.model, object.string("model"));
  TANDEM_RETURN_IF_ERROR(read_draft_count(object, max_draft_tokens, config));
  TANDEM_ASSIGN_OR_RETURN(const int64_t offset,
                          object.integer_or("draft_position_offset", 0, 0, 1));
  config.draft_position_offset = static_cast<int>(offset);
  TANDEM_RETURN_IF_ERROR(read_sample_method(object, config));
  TANDEM_RETURN_IF_ERROR(read_synthetic(object, config));
  TANDEM_RETURN_IF_ERROR(read_ranges(object, config));
  TANDEM_RETURN_IF_ERROR(read_quantization(object, config));
  return config;
}

}  // namespace tandem::io
