#include "quantize/scales.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/e4m3.h"

namespace tandem::quantize {
namespace {

TEST(Scales, MaxIsAmaxOver448) {
  EXPECT_EQ(scale_from_amax(448), 1.0F);
  EXPECT_EQ(scale_from_amax(3.0F), 3.0F / 448.0F);
  EXPECT_EQ(scale_from_amax(0), 1.0F) << "zeros are exact with any scale";
  EXPECT_TRUE(std::isnormal(scale_from_amax(1e-40F))) << "loaders refuse subnormal scales";
}

TEST(Scales, PercentileIsTheSmallestMagnitudeThatCoversIt) {
  std::vector<uint64_t> counts(kNumMagnitudes, 0);
  const size_t one = magnitude_index(core::to_bf16(1.0F));
  const size_t two = magnitude_index(core::to_bf16(2.0F));
  const size_t far = magnitude_index(core::to_bf16(100.0F));
  counts[one] = 900;
  counts[two] = 99;
  counts[far] = 1;
  EXPECT_EQ(percentile_magnitude(counts, 90.0), 1.0F);
  EXPECT_EQ(percentile_magnitude(counts, 90.1), 2.0F);
  EXPECT_EQ(percentile_magnitude(counts, 99.9), 2.0F);
  EXPECT_EQ(percentile_magnitude(counts, 99.91), 100.0F);
  EXPECT_EQ(percentile_magnitude(counts, 100.0), 100.0F);
  EXPECT_EQ(percentile_magnitude(std::vector<uint64_t>(kNumMagnitudes, 0), 50), 0.0F);
}

TEST(Scales, ErrorIsThatOfTheRoundedValues) {
  std::vector<double> weights(kNumMagnitudes, 0);
  const float scale = 0.01F;
  double expected = 0;
  for (int i = 0; i < 200; ++i) {
    const core::BFloat16 value = core::to_bf16(0.031F * static_cast<float>(i));
    weights[magnitude_index(value)] += i;
    const float rounded =
        core::e4m3_to_float(core::float_to_e4m3(core::to_float(value) / scale)) * scale;
    expected += i * std::pow(static_cast<double>(core::to_float(value)) - rounded, 2);
  }
  EXPECT_NEAR(quantization_error(weights, scale), expected, 1e-9 * expected);
}

TEST(Scales, SearchNeverLosesToTheMaximum) {
  std::vector<double> weights(kNumMagnitudes, 0);
  for (int i = 1; i <= 300; ++i)
    weights[magnitude_index(core::to_bf16(0.01F * static_cast<float>(i)))] = 1.0 / i;
  const float amax = core::round_to_bf16(3.0F);
  const float found = search_scale(weights, amax);
  EXPECT_LE(quantization_error(weights, found), quantization_error(weights, amax / 448));
  EXPECT_GE(found, 0.5F * amax / 448 * 0.999F);
  EXPECT_LE(found, amax / 448);
}

// One value below the outlier carries all the weight: clipping the outlier costs nothing, and the
// best scale is the one on whose grid the value lies.
TEST(Scales, SearchClipsAnOutlierWithoutWeight) {
  std::vector<double> weights(kNumMagnitudes, 0);
  const float value = core::round_to_bf16(0.93F);
  weights[magnitude_index(core::to_bf16(value))] = 1;
  weights[magnitude_index(core::to_bf16(1.75F))] = 1e-12;
  const float found = search_scale(weights, 1.75F);
  EXPECT_LT(found, 1.75F / 448);
  EXPECT_LT(quantization_error(weights, found), 0.1 * quantization_error(weights, 1.75F / 448));
}

TEST(Scales, EqualErrorsKeepTheLargestScale) {
  // A power of two is exact with amax / 448 = 2^-2 and no candidate can be better than exact.
  std::vector<double> weights(kNumMagnitudes, 0);
  weights[magnitude_index(core::to_bf16(112.0F))] = 1;
  EXPECT_EQ(search_scale(weights, 112.0F), 0.25F);
}

TEST(Scales, NamesAreRefusedWithTheChoices) {
  EXPECT_TRUE(parse_scale_method("mse"));
  const auto bad = parse_scale_method("entropy");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message, "--scale: expected max, mse or percentile, got entropy");
}

}  // namespace
}  // namespace tandem::quantize
