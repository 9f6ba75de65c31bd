#include "sampling/known_row.h"

#include <algorithm>
#include <cmath>

namespace tandem::sampling {
namespace {

// Of KnownRow::log_sum and of sums of weights, relative.
constexpr double kWeightSlack = 2e-5;

// At most what the tokens beyond row.top weigh together, relative to the row's largest logit. No
// rule makes them heavier.
double most_beyond_top(const KnownRow& row, double temperature, int64_t vocab_size) {
  const float largest = row.top.front().logit;
  const double total = std::exp(row.log_sum - static_cast<double>(largest));
  double known = 0;
  for (const Candidate& c : row.top) known += token_weight(c.logit, largest, 1.0);
  const double rest = std::max(0.0, total - known) + kWeightSlack * total;
  // Each of them weighs w <= last. Below temperature 1, w^(1/T) <= w * last^(1/T - 1); above, the
  // sum of n powers is largest when all are equal.
  if (temperature <= 1) {
    const double last = token_weight(row.top.back().logit, largest, 1.0);
    return rest * std::pow(last, 1 / temperature - 1);
  }
  return std::pow(static_cast<double>(vocab_size), 1 - 1 / temperature) *
         std::pow(rest, 1 / temperature);
}

}  // namespace

const float* find_logit(const KnownRow& row, int32_t id) {
  for (const std::span<const Candidate> some : {row.top, row.others})
    for (const Candidate& c : some)
      if (c.id == id) return &c.logit;
  return nullptr;
}

Tail tail_of(const KnownRow& row, const KnownTokens& known, double temperature,
             int64_t vocab_size) {
  Tail tail;
  const float largest = known.sorted.front().logit;
  const auto behind = std::span(known.sorted).subspan(known.num_first);
  for (const Candidate& c : behind)
    tail.least_weight += token_weight(c.logit, largest, temperature);
  tail.most_weight = tail.least_weight;
  tail.empty = row.holds_all_choices() && behind.empty();
  tail.largest = behind.empty() ? 0.0F : behind.front().logit;
  if (row.holds_all_choices()) return tail;
  tail.largest = row.top.back().logit;
  const double scale = token_weight(row.top.front().logit, largest, temperature);
  tail.most_weight += scale * most_beyond_top(row, temperature, vocab_size);
  return tail;
}

}  // namespace tandem::sampling
