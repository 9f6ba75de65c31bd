#include "core/bf16.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem::core {
namespace {

TEST(BFloat16, EveryValueSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const BFloat16 value{static_cast<uint16_t>(bits)};
    const float f = to_float(value);
    if (std::isnan(f))
      EXPECT_TRUE(std::isnan(round_to_bf16(f)));
    else
      EXPECT_EQ(to_bf16(f).bits, bits);
  }
}

TEST(BFloat16, TiesGoToEven) {
  for (uint32_t bits = 0x3f80; bits < 0x4080; ++bits) {
    const float low = to_float(BFloat16{static_cast<uint16_t>(bits)});
    const float high = to_float(BFloat16{static_cast<uint16_t>(bits + 1)});
    const float middle = 0.5F * (low + high);
    EXPECT_EQ(to_bf16(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(to_bf16(std::nextafter(middle, 1e9F)).bits, bits + 1);
    EXPECT_EQ(to_bf16(std::nextafter(middle, -1e9F)).bits, bits);
    EXPECT_EQ(to_bf16(-middle).bits, to_bf16(middle).bits | 0x8000U);
  }
}

TEST(BFloat16, OverflowsToInfinityAndKeepsNaN) {
  EXPECT_EQ(round_to_bf16(3.4e38F), INFINITY);
  EXPECT_EQ(round_to_bf16(-3.4e38F), -INFINITY);
  EXPECT_EQ(round_to_bf16(INFINITY), INFINITY);
  // A NaN whose payload lies in the lower half only must not become infinity.
  EXPECT_TRUE(std::isnan(round_to_bf16(std::bit_cast<float>(0x7f800001U))));
}

// The embedding scale of the 12B: sqrt(3840) = 61.9677 is 62 in BF16.
TEST(BFloat16, RoundsTheEmbeddingScale) {
  EXPECT_EQ(round_to_bf16(std::sqrt(3840.0F)), 62.0F);
  EXPECT_EQ(round_to_bf16(std::sqrt(5376.0F)), 73.5F);
}

}  // namespace
}  // namespace tandem::core
