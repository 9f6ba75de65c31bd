#include "sampling/score.h"

#include <cmath>

#include "base/check.h"
#include "sampling/candidates.h"

namespace tandem::sampling {

double log_sum_exp(std::span<const float> logits, float max_logit) {
  const auto max = static_cast<double>(max_logit);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  return max + std::log(sum);
}

TokenScore score_token(std::span<const float> logits, int32_t token, int32_t num_top) {
  TANDEM_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size());
  TokenScore score;
  const RowMax best = row_max(logits);
  if (!best.finite || best.id < 0) return score;
  const double log_sum = log_sum_exp(logits, best.logit);
  const auto logprob = [&](float logit) { return logprob_of(logit, log_sum); };
  const Candidate known{logits[static_cast<size_t>(token)], token};
  score.token = token;
  score.logprob = logprob(known.logit);
  score.rank = 1;
  for (size_t id = 0; id < logits.size(); ++id)
    if (comes_before({logits[id], static_cast<int32_t>(id)}, known)) ++score.rank;
  std::vector<Candidate> candidates;
  select_top(logits, num_top, candidates);
  for (const Candidate& c : candidates) score.top.push_back({c.id, logprob(c.logit)});
  return score;
}

}  // namespace tandem::sampling
