// A row of logits of which the first tokens are known: all that choosing its token mostly takes.
#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "sampling/candidates.h"

namespace tandem::sampling {

// A token that is ahead in a draw among all. Weights are exp((logit - largest) / temperature).
struct Contender {
  int32_t id = 0;
  float weight_before = 0.0F;  // of all tokens that come before it, in candidate order
};

// Of the logits as the model gave them.
struct KnownRow {
  bool finite = true;              // neither NaN nor +inf in the row; if not, nothing else counts
  std::span<const Candidate> top;  // its first tokens, in candidate order
  bool complete = false;           // no other token is above -inf
  std::span<const Candidate> others = {};  // of more tokens, in any order; may repeat those of top
  bool holds_allowed = false;              // every token that the mask allows is among these
  double log_sum = 0;  // log of the sum of exp over the row, to far less than 1e-5
  // Of tokens that are in neither list: at most what logit / temperature + noise is, to 1e-4 and
  // some bits of FP32.
  double most_score = std::numeric_limits<double>::infinity();
  std::span<const Contender> contenders = {};  // they are among others
  double weight = 0;                           // of all tokens together; with contenders

  bool holds_all_choices() const { return complete || holds_allowed; }
};

// Tokens of such a row after the sampler's rules.
struct KnownTokens {
  std::vector<Candidate> sorted;  // above -inf, in candidate order
  size_t num_first = 0;           // the first of them are the row's first; behind them, who knows
};

// The logit of a token, if it is known.
const float* find_logit(const KnownRow& row, int32_t id);

// The row without the first `known.num_first` of its tokens; the largest logit that is left is
// known.sorted.front().
Tail tail_of(const KnownRow& row, const KnownTokens& known, double temperature, int64_t vocab_size);

}  // namespace tandem::sampling
