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
#include "sampling/known_row.h"
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

struct ChangedToken {
  Candidate raw;
  float logit = 0.0F;  // by the rules
};

// Which tokens a grammar allows: bit id % 32 of word id / 32. Empty: all.
using TokenMask = std::span<const uint32_t>;

inline bool is_allowed(TokenMask mask, int32_t id) {
  const auto bit = static_cast<uint32_t>(id);
  return mask.empty() || ((mask[bit / 32] >> (bit % 32)) & 1U) != 0;
}

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

  // A guess at it from the logits of another model: whoever draws with the same noise from a
  // similar distribution mostly draws the same token.
  int32_t guess(std::span<const float> logits, int64_t position) const;

  // The same as choose() from what is known of the row (known_row.h); none where that does not
  // decide it.
  std::optional<TokenChoice> choose_known(const KnownRow& row, int64_t position,
                                          TokenMask allowed = {}) const;
  // Whether that always decides, with the first `num_top` tokens, the first `most_asked` that
  // add_asked_ids() names and no mask, for the tokens that follow too.
  bool needs_no_row(int64_t num_top, int64_t most_asked) const;
  // Appends ids whose logits choose_known() would like to know beside those of the first tokens.
  void add_asked_ids(std::vector<int32_t>& ids) const;

  // Whether no top-k bounds what may be drawn: then the tokens that are ahead in the draw tell
  // more.
  bool draws_from_all() const {
    return !params_.greedy() && (params_.top_k <= 0 || params_.top_k >= vocab_size_);
  }

  // Takes an emitted token into the history.
  void commit(int32_t token);

  // Whether choose() does no more than leave out suppress_tokens(), truncate and draw, so that a
  // device may do it.
  bool is_plain() const;
  Truncation truncation() const;
  const std::vector<int32_t>& suppress_tokens() const { return suppress_tokens_; }
  const SamplingParams& params() const { return params_; }
  uint64_t seed() const { return seed_; }
  int64_t num_output_tokens() const { return num_output_tokens_; }

 private:
  // `raw` is row_max() of the logits; kNotFinite where nothing may be chosen.
  int32_t choose_token(std::span<const float> logits, const RowMax& raw, int64_t position,
                       TokenMask allowed) const;
  bool stops_banned() const { return num_output_tokens_ < params_.min_tokens; }
  bool adjusts_logits() const;
  // Whether the history makes some tokens likelier.
  bool history_raises() const;
  // What is left of a token's logit, masks aside. ended: ended_ids().
  float adjusted(int32_t id, float logit, std::span<const int32_t> ended) const;
  float penalized(int32_t id, float logit) const;
  void adjust_logits(std::span<const float> logits, TokenMask allowed,
                     std::vector<float>& row) const;
  // All that a rule names, masks aside; some more than once.
  std::vector<int32_t> named_ids(std::span<const int32_t> ended) const;
  // What would end one of banned_sequences.
  std::vector<int32_t> ended_ids() const;
  // Whether every token that a rule may raise is known, so that the others stay behind the first.
  bool raised_are_known(const KnownRow& row) const;
  // The row's tokens by the rules; false where that takes the row.
  bool apply_rules(const KnownRow& row, TokenMask allowed, KnownTokens& known) const;
  std::optional<int32_t> choose_among(const KnownRow& row, const KnownTokens& known,
                                      int64_t position, bool is_masked) const;
  // The winner of the draw, if it is one of `known` and none else can be. `least`: of the row's
  // first tokens so many survive truncation for sure.
  std::optional<int32_t> win_draw(const KnownRow& row, const KnownTokens& known, size_t least,
                                  int64_t position, bool is_masked) const;
  // Known tokens whose logits the rules change, if these are all that they change.
  std::optional<std::vector<ChangedToken>> changed_tokens(const KnownRow& row,
                                                          bool is_masked) const;
  bool add_logprobs(const KnownRow& row, TokenChoice& choice) const;
  int32_t draw(std::span<const Candidate> candidates, float max_logit, int64_t position) const;

  SamplingParams params_;
  int64_t vocab_size_;
  std::vector<int32_t> suppress_tokens_;
  std::vector<int32_t> never_ids_;    // suppressed or banned, sorted
  std::vector<int32_t> allowed_ids_;  // params_.allowed_token_ids, sorted
  std::vector<int32_t> stop_ids_;     // eos and stop ids, sorted: what min_tokens holds back
  uint64_t seed_;
  int64_t num_output_tokens_ = 0;
  // Only kept when a penalty needs them. Prompt tokens stand with count 0.
  bool tracks_history_;
  std::unordered_map<int32_t, int32_t> output_counts_;
  size_t longest_banned_ = 0;    // of banned_sequences, in tokens
  std::vector<int32_t> recent_;  // the last output tokens, as far back as banned_sequences look
};

}  // namespace tandem::sampling
