#include "sampling/candidates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace tandem::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kLanes = 16;  // independent maxima, so that the compiler can use vectors

// exp((logit - max) / temperature): the weight of a token, 1 for the likeliest.
double weight(float logit, float max_logit, double temperature) {
  return std::exp((static_cast<double>(logit) - static_cast<double>(max_logit)) / temperature);
}

// Length of the prefix of `sorted` to keep so that its weight reaches `mass`; the whole length
// when it does not.
size_t prefix_reaching(std::span<const Candidate> sorted, float max_logit, double temperature,
                       double mass, bool& reached) {
  double sum = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    sum += weight(sorted[i].logit, max_logit, temperature);
    if (sum >= mass) {
      reached = true;
      return i + 1;
    }
  }
  reached = false;
  return sorted.size();
}

// Top-p over the whole vocabulary: looks at ever longer prefixes, most rows need only the first.
void top_p_of_all(std::span<const float> logits, float max_logit, const Truncation& truncation,
                  std::vector<Candidate>& out) {
  double total = 0;
  for (const float logit : logits) total += weight(logit, max_logit, truncation.temperature);
  const double mass = truncation.top_p * total;
  const auto vocab_size = static_cast<int64_t>(logits.size());
  bool reached = false;
  for (int64_t count = std::min<int64_t>(256, vocab_size); !reached;
       count = std::min(8 * count, vocab_size)) {
    select_top(logits, count, out);
    const size_t keep = prefix_reaching(out, max_logit, truncation.temperature, mass, reached);
    if (reached) out.resize(keep);
    if (count == vocab_size) break;  // rounding may leave the sum a hair below the mass
  }
}

void top_p_of_top_k(float max_logit, const Truncation& truncation, std::vector<Candidate>& out) {
  double total = 0;
  for (const Candidate& c : out) total += weight(c.logit, max_logit, truncation.temperature);
  bool reached = false;
  out.resize(
      prefix_reaching(out, max_logit, truncation.temperature, truncation.top_p * total, reached));
}

}  // namespace

RowMax row_max(std::span<const float> logits) {
  std::array<float, kLanes> best;
  best.fill(-kInfinity);
  std::array<uint32_t, kLanes> bad{};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float x = logits[i + lane];
      best[lane] = x > best[lane] ? x : best[lane];
      bad[lane] |= x < kInfinity ? 0U : 1U;
    }
  }
  RowMax result{.logit = -kInfinity, .id = -1, .finite = true};
  for (size_t lane = 0; lane < kLanes; ++lane) {
    result.logit = std::max(result.logit, best[lane]);
    result.finite = result.finite && bad[lane] == 0;
  }
  for (; i < logits.size(); ++i) {
    result.logit = logits[i] > result.logit ? logits[i] : result.logit;
    result.finite = result.finite && logits[i] < kInfinity;
  }
  if (result.logit > -kInfinity)
    result.id = static_cast<int32_t>(std::find(logits.begin(), logits.end(), result.logit) -
                                     logits.begin());
  return result;
}

void select_top(std::span<const float> logits, int64_t count, std::vector<Candidate>& out) {
  out.clear();
  if (count <= 0) return;
  const auto keep = static_cast<size_t>(count);
  const size_t room = std::max<size_t>(2 * keep, 512);
  // A token at or below the floor cannot be among the first `keep`: equal ones came earlier.
  float floor = -kInfinity;
  const auto shrink = [&] {
    if (out.size() <= keep) return;
    std::nth_element(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(keep) - 1, out.end(),
                     comes_before);
    out.resize(keep);
    floor = out.back().logit;
  };
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!(logits[id] > floor)) continue;
    out.push_back({logits[id], static_cast<int32_t>(id)});
    if (out.size() == room) shrink();
  }
  shrink();
  std::sort(out.begin(), out.end(), comes_before);
}

void truncate(std::span<const float> logits, float max_logit, const Truncation& truncation,
              std::vector<Candidate>& out) {
  const auto vocab_size = static_cast<int64_t>(logits.size());
  const bool top_k_on = truncation.top_k > 0 && truncation.top_k < vocab_size;
  // In logits: weight >= min_p. min_p = 0 keeps everything above -inf.
  const double floor =
      truncation.min_p > 0
          ? static_cast<double>(max_logit) + truncation.temperature * std::log(truncation.min_p)
          : -std::numeric_limits<double>::infinity();
  const auto survives = [&](float logit) {
    return logit > -kInfinity && static_cast<double>(logit) >= floor;
  };
  if (top_k_on || truncation.top_p < 1) {
    if (top_k_on) {
      select_top(logits, truncation.top_k, out);
      if (truncation.top_p < 1) top_p_of_top_k(max_logit, truncation, out);
    } else {
      top_p_of_all(logits, max_logit, truncation, out);
    }
    while (!out.empty() && !survives(out.back().logit)) out.pop_back();
    return;
  }
  out.clear();
  for (size_t id = 0; id < logits.size(); ++id)
    if (survives(logits[id])) out.push_back({logits[id], static_cast<int32_t>(id)});
}

}  // namespace tandem::sampling
