#include "bench/random_prompts.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tandem::bench {
namespace {

constexpr int64_t kMaxLength = int64_t{1} << 24;  // tokens; prompts are held in memory

}  // namespace

uint64_t RandomNumbers::next() {
  state_ += 0x9e3779b97f4a7c15ULL;
  uint64_t value = state_;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

double RandomNumbers::uniform() {
  return static_cast<double>(next() >> 11) * 0x1.0p-53;
}

int64_t RandomNumbers::between(int64_t low, int64_t high) {
  const auto count = static_cast<double>(high - low + 1);
  return low + std::min(high - low, static_cast<int64_t>(uniform() * count));
}

double RandomNumbers::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

// Marsaglia and Tsang's method; below shape 1 a power of a uniform number corrects it.
double RandomNumbers::gamma(double shape) {
  if (shape < 1) return gamma(shape + 1) * std::pow(1 - uniform(), 1 / shape);
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = normal();
    const double v = std::pow(1 + c * x, 3);
    if (v <= 0) continue;
    if (std::log(1 - uniform()) < x * x / 2 + d - d * v + d * std::log(v)) return d * v;
  }
}

base::Status check_lengths(const RandomLengths& lengths) {
  const auto check = [](const char* flag, int64_t value, int64_t least) {
    return value >= least && value <= kMaxLength
               ? base::Status()
               : base::Status(base::invalid("{}: expected {} to {}, got {}", flag, least,
                                            kMaxLength, value));
  };
  TANDEM_RETURN_IF_ERROR(check("--input-len", lengths.input_len, 1));
  TANDEM_RETURN_IF_ERROR(check("--output-len", lengths.output_len, 1));
  TANDEM_RETURN_IF_ERROR(check("--random-prefix-len", lengths.prefix_len, 0));
  if (!(lengths.range_ratio >= 0 && lengths.range_ratio < 1))
    return base::invalid("--random-range-ratio: expected 0 <= ratio < 1, got {}",
                         lengths.range_ratio);
  return {};
}

std::vector<RandomPrompt> random_prompts(int64_t count, const RandomLengths& lengths,
                                         int64_t vocab_size, std::span<const int32_t> excluded,
                                         uint64_t seed) {
  RandomNumbers numbers(seed);
  const auto draw_id = [&] {
    while (true) {
      const auto id = static_cast<int32_t>(numbers.between(0, vocab_size - 1));
      if (std::ranges::find(excluded, id) == excluded.end()) return id;
    }
  };
  const auto draw_len = [&](int64_t len) {
    const double reach = static_cast<double>(len) * lengths.range_ratio;
    const auto low = static_cast<int64_t>(std::floor(static_cast<double>(len) - reach));
    const auto high = static_cast<int64_t>(std::ceil(static_cast<double>(len) + reach));
    return std::max<int64_t>(1, numbers.between(low, high));
  };
  std::vector<int32_t> prefix;
  for (int64_t i = 0; i < lengths.prefix_len; ++i) prefix.push_back(draw_id());
  std::vector<RandomPrompt> prompts;
  for (int64_t i = 0; i < count; ++i) {
    RandomPrompt prompt{prefix, draw_len(lengths.output_len)};
    for (int64_t left = draw_len(lengths.input_len); left > 0; --left)
      prompt.ids.push_back(draw_id());
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace tandem::bench
