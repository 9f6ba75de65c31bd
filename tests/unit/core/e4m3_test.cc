#include "core/e4m3.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

namespace tandem::core {
namespace {

// torch's float8_e4m3fn, recorded by tools/golden.
TEST(E4M3, AgreesWithTheGoldenTable) {
  std::ifstream file(std::string(TANDEM_TEST_DATA) + "/golden/e4m3.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  ASSERT_EQ(golden["decode"].size(), 256U);
  for (size_t byte = 0; byte < 256; ++byte) {
    const float value = e4m3_to_float(static_cast<uint8_t>(byte));
    if (golden["decode"][byte].is_null())
      EXPECT_TRUE(std::isnan(value)) << byte;
    else
      EXPECT_EQ(value, golden["decode"][byte].get<float>()) << byte;
  }
  ASSERT_GT(golden["encode"].size(), 1000U);
  for (const auto& pair : golden["encode"]) {
    const auto value = std::bit_cast<float>(pair[0].get<uint32_t>());
    EXPECT_EQ(float_to_e4m3(value), pair[1].get<uint8_t>()) << value;
  }
}

TEST(E4M3, TheKnownCorners) {
  EXPECT_EQ(e4m3_to_float(0x7e), 448.0F);
  EXPECT_EQ(e4m3_to_float(0x08), std::ldexp(1.0F, -6));
  EXPECT_EQ(e4m3_to_float(0x01), std::ldexp(1.0F, -9));
  EXPECT_TRUE(std::isnan(e4m3_to_float(0x7f)));
  EXPECT_TRUE(std::isnan(e4m3_to_float(0xff)));
  EXPECT_TRUE(std::signbit(e4m3_to_float(0x80)));
  EXPECT_EQ(float_to_e4m3(INFINITY), 0x7e);
  EXPECT_EQ(float_to_e4m3(-1e30F), 0xfe);
  EXPECT_EQ(float_to_e4m3(std::nanf("")) & 0x7f, 0x7f);
  EXPECT_EQ(float_to_e4m3(-0.0F), 0x80);
}

TEST(E4M3, EveryByteSurvivesARoundTrip) {
  for (int byte = 0; byte < 256; ++byte) {
    const auto code = static_cast<uint8_t>(byte);
    if (e4m3_is_nan(code)) continue;
    EXPECT_EQ(float_to_e4m3(e4m3_to_float(code)), code);
  }
}

// Nearest by search over all values; of two equally near ones the even code.
uint8_t nearest(float value) {
  uint8_t best = 0;
  double distance = INFINITY;
  for (uint8_t code = 0; code < 0x7f; ++code) {
    const double d =
        std::fabs(static_cast<double>(std::fabs(value)) - static_cast<double>(e4m3_to_float(code)));
    if (d < distance || (d == distance && code % 2 == 0)) {
      distance = d;
      best = code;
    }
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80U : 0U));
}

TEST(E4M3, RoundsToTheNearestAndTiesToEven) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> exponent(-12.0F, 10.0F);
  for (int i = 0; i < 20000; ++i) {
    const float value = (i % 2 == 0 ? 1.0F : -1.0F) * std::exp2(exponent(generator));
    ASSERT_EQ(float_to_e4m3(value), nearest(value)) << value;
  }
  for (uint8_t code = 0; code < 0x7e; ++code) {
    const float low = e4m3_to_float(code);
    const float high = e4m3_to_float(static_cast<uint8_t>(code + 1));
    const float middle = 0.5F * (low + high);
    EXPECT_EQ(float_to_e4m3(middle), code % 2 == 0 ? code : code + 1) << middle;
    EXPECT_EQ(float_to_e4m3(std::nextafter(middle, 1e9F)), code + 1) << middle;
    EXPECT_EQ(float_to_e4m3(std::nextafter(middle, -1e9F)), code) << middle;
  }
}

}  // namespace
}  // namespace tandem::core
