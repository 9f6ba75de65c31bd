// The sampler of one sequence: logits of a row -> one token.
//
// Coupled sampling: the drawn token is the argmax of logit / temperature + Gumbel noise over the
// surviving candidates, the noise a function of (seed, position, token id) alone. So the token
// depends only on (seed, position, distribution): verification accepts a draft when it equals the
// drawn token, and the emitted text is that of plain sampling with the same seed, whatever the
// number of drafts, the batch or the place where rounds begin.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "ops/argmax.h"
#include "sampling/candidates.h"
#include "sampling/params.h"
#include "sampling/score.h"

namespace tandem::sampling {

// The row holds NaN or +inf, or nothing may be chosen (everything is suppressed, banned or masked).
inline constexpr int32_t kNotFinite = ops::kNotFinite;

// Log-probabilities are those of the model: before suppression, bias, penalties and temperature.
struct TokenChoice {
  int32_t token = kNotFinite;
  float logprob = 0.0F;           // of `token`; 0 when num_logprobs is -1
  std::vector<TokenLogprob> top;  // the num_logprobs likeliest, in order, or logprob_token_ids
};

// Which tokens a grammar allows: bit id % 32 of word id / 32. Empty: all.
using TokenMask = std::span<const uint32_t>;

// The logits of all other tokens become -inf.
void keep_allowed(TokenMask allowed, std::span<float> logits);

// Copyable: a copy continues from the same history on its own.
class Sampler {
 public:
  // `params` have passed validate(). suppress_tokens: never chosen (generation_config). eos_ids:
  // chosen only after min_tokens. `seed` is params.seed, or derive_seed() without one.
  Sampler(SamplingParams params, int64_t vocab_size, std::span<const int32_t> prompt_ids,
          std::vector<int32_t> suppress_tokens, std::vector<int32_t> eos_ids, uint64_t seed);

  // The token for absolute position `position` (the prompt begins at 0), given the history so far.
  // logits [vocab_size], after the soft cap. Order: suppressed, banned and masked tokens leave;
  // logit_bias; repetition, frequency, presence penalty; temperature; top-k; top-p; min-p; draw.
  TokenChoice choose(std::span<const float> logits, int64_t position, TokenMask allowed = {}) const;

  // How many of a row's likeliest tokens choose() looks at, without suppress_tokens(), where it
  // looks at nothing else: 1 for plain greedy, top_k where no other rule needs the row. None: all
  // of it.
  std::optional<int64_t> num_candidates() const;

  // What choose() gives for a row whose first num_candidates() tokens, or all above -inf if there
  // are fewer, are `candidates`, in candidate order; none where the row is not finite.
  TokenChoice choose_among(std::span<const Candidate> candidates, int64_t position) const;

  // Takes an emitted token into the history.
  void commit(int32_t token);

  // True when choose() is the argmax without suppress_tokens(), so that a fused head may do it.
  bool is_plain_greedy() const;
  const std::vector<int32_t>& suppress_tokens() const { return suppress_tokens_; }
  const SamplingParams& params() const { return params_; }
  int64_t num_output_tokens() const { return num_output_tokens_; }

 private:
  bool stops_banned() const { return num_output_tokens_ < params_.min_tokens; }
  bool adjusts_logits() const;
  void adjust_logits(TokenMask allowed, std::span<float> logits) const;
  void apply_penalties(std::span<float> logits) const;
  void end_no_banned_sequence(std::span<float> logits) const;
  Truncation truncation() const;
  int32_t draw(std::span<const Candidate> candidates, float max_logit, int64_t position) const;

  SamplingParams params_;
  int64_t vocab_size_;
  std::vector<int32_t> suppress_tokens_;
  std::vector<int32_t> stop_ids_;  // eos and stop ids: what min_tokens holds back
  uint64_t seed_;
  int64_t num_output_tokens_ = 0;
  // Only kept when a penalty needs them. Prompt tokens stand with count 0.
  bool tracks_history_;
  std::unordered_map<int32_t, int32_t> output_counts_;
  size_t longest_banned_ = 0;    // of banned_sequences, in tokens
  std::vector<int32_t> recent_;  // the last output tokens, as far back as banned_sequences look
};

}  // namespace tandem::sampling
