#include "tests/unit/sampling/distribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tandem::sampling::test {
namespace {

// Upper regularised incomplete gamma function Q(a, x): series below a + 1, Lentz's continued
// fraction above.
double gamma_q(double a, double x) {
  if (x <= 0) return 1;
  const double scale = std::exp(-x + a * std::log(x) - std::lgamma(a));
  if (x < a + 1) {
    double term = 1 / a;
    double sum = term;
    for (double n = a + 1; term > sum * 1e-15; n += 1) {
      term *= x / n;
      sum += term;
    }
    return 1 - sum * scale;
  }
  double b = x + 1 - a;
  double c = 1e300;
  double d = 1 / b;
  double h = d;
  for (int i = 1; i < 100000; ++i) {
    const double an = -i * (i - a);
    b += 2;
    d = 1 / (an * d + b);
    c = b + an / c;
    const double delta = d * c;
    h *= delta;
    if (std::abs(delta - 1) < 1e-15) break;
  }
  return scale * h;
}

}  // namespace

std::vector<double> naive_distribution(std::span<const float> logits,
                                       const Truncation& truncation) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  std::vector<double> p(logits.size(), 0.0);
  const double max = logits[order[0]];
  for (size_t id = 0; id < logits.size(); ++id)
    p[id] = std::exp((static_cast<double>(logits[id]) - max) / truncation.temperature);
  const auto normalise = [&] {
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= total;
  };
  if (truncation.top_k > 0)
    for (size_t rank = static_cast<size_t>(truncation.top_k); rank < order.size(); ++rank)
      p[order[rank]] = 0;
  normalise();
  if (truncation.top_p < 1) {
    double before = 0;
    for (const size_t id : order) {
      const double own = p[id];
      if (before >= truncation.top_p) p[id] = 0;
      before += own;
    }
    normalise();
  }
  const double floor = truncation.min_p * p[order[0]];
  for (double& value : p)
    if (value < floor) value = 0;
  normalise();
  return p;
}

double chi_square_p_value(std::span<const int64_t> counts, std::span<const double> expected) {
  const auto draws = static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  double statistic = 0;
  double pooled_count = 0;
  double pooled_expected = 0;
  int bins = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double e = expected[i] * draws;
    const auto n = static_cast<double>(counts[i]);
    if (expected[i] == 0 && n > 0) return 0;
    if (e < 5) {
      pooled_count += n;
      pooled_expected += e;
      continue;
    }
    statistic += (n - e) * (n - e) / e;
    ++bins;
  }
  if (pooled_expected > 0) {
    statistic += (pooled_count - pooled_expected) * (pooled_count - pooled_expected) /
                 std::max(pooled_expected, 1e-3);
    ++bins;
  }
  return bins < 2 ? 1 : gamma_q((bins - 1) / 2.0, statistic / 2);
}

std::vector<float> random_logits(std::mt19937_64& random, size_t vocab_size, float spread) {
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> logits(vocab_size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

}  // namespace tandem::sampling::test
