// Where a round's tokens end. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/request.h"
#include "sampling/sampler.h"

namespace tandem::engine {

struct StopRules {
  std::vector<int32_t> ids;  // eos ids unless ignored, and the request's stop ids
  int64_t max_tokens = 0;
  int64_t min_tokens = 0;  // no stop id counts before
};

StopRules make_stop_rules(const sampling::SamplingParams& params, std::span<const int32_t> eos_ids,
                          int64_t max_tokens);

struct StopCut {
  size_t num_kept = 0;                 // the stop token itself is kept
  std::optional<FinishReason> reason;  // kStop or kLength; absent: goes on
  std::optional<int32_t> stop_token;
};

// Scans the emitted tokens in order; num_output_tokens were kept in earlier rounds.
StopCut find_stop(std::span<const sampling::TokenChoice> emitted, int64_t num_output_tokens,
                  const StopRules& rules);

}  // namespace tandem::engine
