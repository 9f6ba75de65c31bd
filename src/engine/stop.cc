#include "engine/stop.h"

#include <algorithm>

namespace tandem::engine {

StopRules make_stop_rules(const sampling::SamplingParams& params, std::span<const int32_t> eos_ids,
                          int64_t max_tokens) {
  StopRules rules{
      .ids = params.stop_token_ids, .max_tokens = max_tokens, .min_tokens = params.min_tokens};
  if (!params.ignore_eos) rules.ids.insert(rules.ids.end(), eos_ids.begin(), eos_ids.end());
  return rules;
}

StopCut find_stop(std::span<const sampling::TokenChoice> emitted, int64_t num_output_tokens,
                  const StopRules& rules) {
  for (size_t i = 0; i < emitted.size(); ++i) {
    const int32_t token = emitted[i].token;
    const int64_t num_output = num_output_tokens + static_cast<int64_t>(i) + 1;
    const bool is_stop = std::find(rules.ids.begin(), rules.ids.end(), token) != rules.ids.end();
    if (is_stop && num_output > rules.min_tokens) return {i + 1, FinishReason::kStop, token};
    if (num_output >= rules.max_tokens) return {i + 1, FinishReason::kLength, std::nullopt};
  }
  return {emitted.size(), std::nullopt, std::nullopt};
}

}  // namespace tandem::engine
