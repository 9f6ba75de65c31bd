// Where the scales of FP8 tensors come from. Pure functions of histograms over BF16 magnitudes,
// which are exact for BF16 values: there are only 32,768 of them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/status.h"
#include "core/bf16.h"

namespace tandem::quantize {

enum class ScaleMethod {
  kMax,         // amax / 448, as ModelOpt
  kMse,         // the fraction of amax / 448 with the smallest weighted squared error
  kPercentile,  // inputs: a percentile of |x| / 448; weights: amax / 448
};

// "max", "mse", "percentile".
base::Result<ScaleMethod> parse_scale_method(std::string_view name);

inline constexpr size_t kNumMagnitudes = 32768;

constexpr size_t magnitude_index(core::BFloat16 value) {
  return value.bits & 0x7fffU;
}
constexpr float magnitude_at(size_t index) {
  return core::to_float(core::BFloat16{static_cast<uint16_t>(index)});
}

// amax / 448; never below the smallest normal float (loaders refuse subnormal scales). An amax of 0
// gives 1, as in ModelOpt: a tensor of zeros is exact with any scale.
float scale_from_amax(float amax);

// The smallest magnitude that at least `percentile` percent of the counted values do not exceed.
// counts [kNumMagnitudes]; 0 when nothing was counted.
float percentile_magnitude(std::span<const uint64_t> counts, double percentile);

// Sum over magnitudes of weight * (m - e4m3(m / scale) * scale)^2. weights [kNumMagnitudes].
double quantization_error(std::span<const double> weights, float scale);

// The best of amax * {0.50, 0.51, ..., 1.00} / 448 by quantization_error; the largest of equals.
float search_scale(std::span<const double> weights, float amax);

}  // namespace tandem::quantize
