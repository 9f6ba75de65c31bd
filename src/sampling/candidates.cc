#include "sampling/candidates.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace tandem::sampling {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kLanes = 16;  // independent maxima, so that the compiler can use vectors

constexpr int64_t kFirstLook = 256;
constexpr size_t kSortedTail = 64;
constexpr double kSumSlack = 1e-9;

// All tokens above -inf with a logit of at least `floor`, in id order.
void keep_above(std::span<const float> logits, double floor, std::vector<Candidate>& out) {
  out.clear();
  for (size_t id = 0; id < logits.size(); ++id)
    if (logits[id] > -kInfinity && static_cast<double>(logits[id]) >= floor)
      out.push_back({logits[id], static_cast<int32_t>(id)});
}

double total_weight(std::span<const Candidate> candidates, float max_logit, double temperature) {
  double total = 0;
  for (const Candidate& c : candidates) total += token_weight(c.logit, max_logit, temperature);
  return total;
}

struct Prefix {
  size_t count = 0;
  bool reached = false;  // whether the weight of the prefix is at least the mass asked for
};

// The shortest prefix of `sorted` that weighs `mass`; all of it when it weighs less.
Prefix prefix_of_mass(std::span<const Candidate> sorted, float max_logit, double temperature,
                      double mass) {
  double sum = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    sum += token_weight(sorted[i].logit, max_logit, temperature);
    if (sum >= mass) return {i + 1, true};
  }
  return {sorted.size(), false};
}

// The same without sorting: halves the range in which the end of the prefix must lie, linear in
// the number of candidates. `out` ends with the prefix, unsorted.
void keep_mass(float max_logit, double temperature, double mass, std::vector<Candidate>& out) {
  size_t begin = 0;  // the prefix holds everything before
  size_t end = out.size();
  const auto at = [&](size_t i) { return out.begin() + static_cast<std::ptrdiff_t>(i); };
  while (end - begin > kSortedTail) {
    const size_t middle = begin + (end - begin) / 2;
    std::nth_element(at(begin), at(middle), at(end), comes_before);
    const double upper = total_weight({at(begin), at(middle)}, max_logit, temperature);
    if (upper >= mass) {
      end = middle;
    } else {
      mass -= upper;
      begin = middle;
    }
  }
  std::sort(at(begin), at(end), comes_before);
  out.resize(begin + prefix_of_mass({at(begin), at(end)}, max_logit, temperature, mass).count);
}

// The same for many: finds the band of logits in which the prefix ends, from one look at each, and
// leaves only that band to be ordered.
void keep_mass_of_many(float max_logit, double temperature, double mass,
                       std::vector<Candidate>& out) {
  constexpr double kBands = 2048;
  constexpr double kDepth = 40;  // in units of temperature; the last band goes on below
  const auto band_of = [&](float logit) {
    const double depth =
        (static_cast<double>(max_logit) - static_cast<double>(logit)) / temperature;
    return static_cast<size_t>(std::min(depth * (kBands / kDepth), kBands - 1));
  };
  std::vector<double> weights(static_cast<size_t>(kBands));
  for (const Candidate& c : out)
    weights[band_of(c.logit)] += token_weight(c.logit, max_logit, temperature);
  size_t last = 0;
  while (last + 1 < weights.size() && weights[last] < mass) mass -= weights[last++];
  std::erase_if(out, [&](const Candidate& c) { return band_of(c.logit) > last; });
  const auto band = std::partition(out.begin(), out.end(),
                                   [&](const Candidate& c) { return band_of(c.logit) < last; });
  std::vector<Candidate> ordered(band, out.end());
  keep_mass(max_logit, temperature, mass, ordered);
  out.erase(std::copy(ordered.begin(), ordered.end(), band), out.end());
}

// Top-p over the whole vocabulary: most rows need only the few likeliest tokens.
void top_p_of_all(std::span<const float> logits, float max_logit, const Truncation& truncation,
                  std::vector<Candidate>& out) {
  double total = 0;
  for (const float logit : logits) total += token_weight(logit, max_logit, truncation.temperature);
  const double mass = truncation.top_p * total;
  select_top(logits, kFirstLook, out);
  const Prefix prefix = prefix_of_mass(out, max_logit, truncation.temperature, mass);
  if (prefix.reached) {
    out.resize(prefix.count);
    return;
  }
  keep_above(logits, -std::numeric_limits<double>::infinity(), out);
  keep_mass_of_many(max_logit, truncation.temperature, mass, out);
}

void drop_below(double floor, std::vector<Candidate>& out) {
  std::erase_if(out, [&](const Candidate& c) { return static_cast<double>(c.logit) < floor; });
}

// `out` holds the tokens that top-k left, in candidate order.
void top_p_of_top_k(float max_logit, const Truncation& truncation, std::vector<Candidate>& out) {
  if (truncation.top_p >= 1) return;
  const double total = total_weight(out, max_logit, truncation.temperature);
  out.resize(
      prefix_of_mass(out, max_logit, truncation.temperature, truncation.top_p * total).count);
}

}  // namespace

double token_weight(float logit, float max_logit, double temperature) {
  return std::exp((static_cast<double>(logit) - static_cast<double>(max_logit)) / temperature);
}

// weight >= min_p; min_p = 0 keeps everything above -inf.
double min_p_depth(const Truncation& truncation) {
  return truncation.min_p > 0 ? truncation.temperature * std::log(truncation.min_p)
                              : -std::numeric_limits<double>::infinity();
}
double min_p_floor(float max_logit, const Truncation& truncation) {
  return static_cast<double>(max_logit) + min_p_depth(truncation);
}

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
  const double floor = min_p_floor(max_logit, truncation);
  if (!top_k_on && truncation.top_p >= 1) {
    keep_above(logits, floor, out);
    return;
  }
  if (top_k_on) {
    select_top(logits, truncation.top_k, out);
    top_p_of_top_k(max_logit, truncation, out);
  } else {
    top_p_of_all(logits, max_logit, truncation, out);
  }
  drop_below(floor, out);
}

Kept truncate_first(std::span<const Candidate> first, const Tail& tail,
                    const Truncation& truncation) {
  const float max_logit = first.front().logit;
  const double temperature = truncation.temperature;
  const double floor = min_p_floor(max_logit, truncation);
  const auto above = std::partition_point(first.begin(), first.end(), [&](const Candidate& c) {
    return static_cast<double>(c.logit) >= floor;
  });
  const auto above_floor = static_cast<size_t>(above - first.begin());
  const bool tail_is_below = tail.empty || static_cast<double>(tail.largest) < floor;
  // What top-k leaves of the tail: at most `open` tokens.
  double open = std::numeric_limits<double>::infinity();
  double least = tail.empty ? 0 : tail.least_weight;
  double most = tail.empty ? 0 : tail.most_weight;
  if (truncation.top_k > 0) {
    const auto top_k = static_cast<size_t>(truncation.top_k);
    if (first.size() >= top_k) {
      first = first.first(top_k);
      least = most = 0;
      open = 0;
    } else {
      open = static_cast<double>(top_k - first.size());
      least = 0;
      most = std::min(most, open * token_weight(tail.largest, max_logit, temperature));
    }
  }
  const bool ends = tail_is_below || open == 0;  // nothing of the tail stays, whatever top-p says
  if (truncation.top_p >= 1) return {std::min(above_floor, first.size()), ends};
  const double known = total_weight(first, max_logit, temperature);
  // Sums of the same numbers in another order differ by far less.
  const double slack = truncation.top_k > 0 && most == 0 ? 0 : kSumSlack;
  const Prefix shortest = prefix_of_mass(first, max_logit, temperature,
                                         truncation.top_p * (known + least) * (1 - slack));
  const Prefix longest = prefix_of_mass(first, max_logit, temperature,
                                        truncation.top_p * (known + most) * (1 + slack));
  const size_t fewest = std::min(shortest.count, above_floor);
  return {fewest, (longest.reached || ends) && fewest == std::min(longest.count, above_floor)};
}

}  // namespace tandem::sampling
