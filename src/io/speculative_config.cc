#include "io/speculative_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::io {
namespace {

constexpr std::string_view kWhere = "--speculative-config";

// Keys of vLLM that change nothing here when they have the given value (any value: nullptr).
struct Harmless {
  std::string_view key;
  std::string_view value;  // as JSON text
};
constexpr std::array<Harmless, 8> kHarmless = {{
    {"method", "\"mtp\""},
    {"draft_tensor_parallel_size", "1"},
    {"draft_sample_method", "\"greedy\""},
    {"parallel_drafting", "false"},
    {"use_local_argmax_reduction", "true"},
    {"disable_padded_drafter_batch", "true"},
    {"disable_eagle_block_drop", "true"},
    {"revision", "null"},
}};

constexpr std::array<std::string_view, 6> kKnown = {
    "model",
    "num_speculative_tokens",
    "draft_position_offset",
    "rejection_sample_method",
    "synthetic_acceptance_length",
    "synthetic_acceptance_rates",
};

base::Status check_keys(const nlohmann::json& config) {
  for (const auto& [key, value] : config.items()) {
    if (std::ranges::find(kKnown, key) != kKnown.end()) continue;
    const auto harmless =
        std::ranges::find_if(kHarmless, [&](const Harmless& entry) { return entry.key == key; });
    if (harmless == kHarmless.end())
      return base::invalid(
          "{}: expected model, num_speculative_tokens, draft_position_offset or "
          "the synthetic_acceptance keys, got \"{}\"",
          kWhere, key.substr(0, 60));
    if (value.dump() != harmless->value)
      return base::unsupported("{}: {}: expected {} (all that Tandem does), got {}", kWhere, key,
                               harmless->value, describe_json(value));
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
  if (object.has("synthetic_acceptance_length")) {
    TANDEM_ASSIGN_OR_RETURN(const double length,
                            object.number_or("synthetic_acceptance_length", 1.0, 1.0,
                                             config.num_speculative_tokens + 1.0));
    config.synthetic_acceptance_length = length;
  }
  if (const nlohmann::json* rates = object.find("synthetic_acceptance_rates")) {
    if (!rates->is_array() || rates->size() > 64)
      return object.mismatch("synthetic_acceptance_rates", "a list of rates");
    for (const auto& rate : *rates) {
      if (!rate.is_number()) return object.mismatch("synthetic_acceptance_rates", "numbers");
      config.synthetic_acceptance_rates.push_back(rate.get<double>());
    }
  }
  return {};
}

}  // namespace

base::Result<SpeculativeConfig> parse_speculative_config(std::string_view text,
                                                         int max_draft_tokens) {
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json json, parse_json(text, std::string(kWhere)));
  TANDEM_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::of(json, std::string(kWhere)));
  TANDEM_RETURN_IF_ERROR(check_keys(json));
  SpeculativeConfig config;
  TANDEM_ASSIGN_OR_RETURN(config.model, object.string("model"));
  TANDEM_RETURN_IF_ERROR(read_draft_count(object, max_draft_tokens, config));
  TANDEM_ASSIGN_OR_RETURN(const int64_t offset,
                          object.integer_or("draft_position_offset", 0, 0, 1));
  config.draft_position_offset = static_cast<int>(offset);
  TANDEM_RETURN_IF_ERROR(read_synthetic(object, config));
  return config;
}

}  // namespace tandem::io
