// What the model thought of a known token: log-probability and rank. Of the model's distribution:
// before suppression, bias, penalties and temperature.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/argmax.h"

namespace tandem::sampling {

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0F;
};

struct TokenScore {
  int32_t token = ops::kNotFinite;  // kNotFinite: the row holds NaN or +inf
  float logprob = 0.0F;
  int64_t rank = 0;               // 1: the likeliest; of equal ones the lower id comes first
  std::vector<TokenLogprob> top;  // the likeliest, in order
};

// log_sum: log_sum_exp() of the row.
inline float logprob_of(float logit, double log_sum) {
  return static_cast<float>(static_cast<double>(logit) - log_sum);
}

// logits [vocab_size]; `token` is one of them, `num_top` >= 0.
TokenScore score_token(std::span<const float> logits, int32_t token, int32_t num_top);

// log(sum of exp(logits)), given their maximum.
double log_sum_exp(std::span<const float> logits, float max_logit);

}  // namespace tandem::sampling
