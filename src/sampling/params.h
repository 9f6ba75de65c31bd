// What a request asks of the sampler. Names and ranges are those of vLLM's API.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tandem::sampling {

// Temperatures below this are greedy.
inline constexpr double kGreedyTemperature = 1e-5;

struct SamplingParams {
  double temperature = 1.0;  // 0: greedy
  int64_t top_k = 0;         // 0 or -1: off
  double top_p = 1.0;
  double min_p = 0.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  double repetition_penalty = 1.0;
  std::vector<std::pair<int32_t, float>> logit_bias;  // (token id, added to its logit)
  std::vector<int32_t> banned_token_ids;              // never chosen
  std::vector<int32_t> allowed_token_ids;             // empty: all
  // The last id of one is never chosen behind its others, as far as these are output. None is
  // empty.
  std::vector<std::vector<int32_t>> banned_sequences = {};
  std::optional<uint64_t> seed;
  int64_t min_tokens = 0;  // stop and eos ids cannot be chosen before this many output tokens
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  int32_t num_logprobs = -1;  // -1: none; 0: of the chosen token; n: of the n likeliest as well
  std::vector<int32_t> logprob_token_ids =
      {};                            // with num_logprobs >= 0: of these, not the likeliest
  int32_t num_prompt_logprobs = -1;  // likewise, of every prompt token but the first

  bool greedy() const { return temperature < kGreedyTemperature; }
};

// Ranges and token ids. The message names the field: `top_p: expected 0 < top_p <= 1, got 1.5`.
base::Status validate(const SamplingParams& params, int64_t vocab_size);

}  // namespace tandem::sampling
