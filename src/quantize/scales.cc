#include "quantize/scales.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "core/e4m3.h"

namespace tandem::quantize {
namespace {

constexpr int kFirstPercent = 50;
constexpr int kLastPercent = 100;
constexpr size_t kFirstNonFinite = 0x7f80;

}  // namespace

base::Result<ScaleMethod> parse_scale_method(std::string_view name) {
  if (name == "max") return ScaleMethod::kMax;
  if (name == "mse") return ScaleMethod::kMse;
  if (name == "percentile") return ScaleMethod::kPercentile;
  return base::invalid("--scale: expected max, mse or percentile, got {}", name);
}

float scale_from_amax(float amax) {
  if (amax == 0) return 1.0F;
  return std::max(amax / core::kE4M3Max, std::numeric_limits<float>::min());
}

float percentile_magnitude(std::span<const uint64_t> counts, double percentile) {
  TANDEM_CHECK_EQ(counts.size(), kNumMagnitudes);
  uint64_t total = 0;
  for (const uint64_t count : counts) total += count;
  const auto wanted =
      static_cast<uint64_t>(std::ceil(static_cast<double>(total) * percentile / 100));
  uint64_t seen = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    seen += counts[i];
    if (counts[i] > 0 && seen >= wanted) return magnitude_at(i);
  }
  return 0;
}

double quantization_error(std::span<const double> weights, float scale) {
  TANDEM_CHECK_EQ(weights.size(), kNumMagnitudes);
  double sum = 0;
  for (size_t i = 0; i < kFirstNonFinite; ++i) {
    if (weights[i] == 0) continue;
    const float value = magnitude_at(i);
    const float rounded = core::e4m3_to_float(core::float_to_e4m3(value / scale)) * scale;
    const double difference = static_cast<double>(value) - static_cast<double>(rounded);
    sum += weights[i] * difference * difference;
  }
  return sum;
}

float search_scale(std::span<const double> weights, float amax) {
  const float whole = scale_from_amax(amax);
  if (amax == 0) return whole;
  float best = whole;
  double least = quantization_error(weights, whole);
  for (int percent = kLastPercent - 1; percent >= kFirstPercent; --percent) {
    const float scale = scale_from_amax(amax * (static_cast<float>(percent) / 100.0F));
    const double error = quantization_error(weights, scale);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

}  // namespace tandem::quantize
