#include "quantize/weight_pass.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/buffer.h"
#include "core/e4m3.h"
#include "quantize/scales.h"

namespace tandem::quantize {
namespace {

using core::BFloat16;

// [rows, cols] BF16 of values that repeat neither by row nor by column.
core::Buffer make_weight(int64_t rows, int64_t cols) {
  core::Buffer buffer(core::DType::kBF16, {rows, cols});
  auto* values = static_cast<BFloat16*>(buffer.data());
  for (int64_t i = 0; i < rows * cols; ++i)
    values[i] = core::to_bf16(std::sin(static_cast<float>(i * 37 % 1009)) * 0.7F);
  return buffer;
}

TEST(WeightPass, EncoderRoundsTheFloatQuotientOnce) {
  core::ThreadPool pool(2);
  const float scale = 0.0021F;
  const WeightEncoder encoder(scale, Quotient::kFloat32);
  std::vector<BFloat16> values;
  for (uint32_t bits = 0; bits < 65536; ++bits)
    values.push_back(BFloat16{static_cast<uint16_t>(bits)});
  std::vector<uint8_t> bytes(values.size());
  encoder.encode(values, bytes.data(), pool);
  for (size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(bytes[i], core::float_to_e4m3(core::to_float(values[i]) / scale)) << i;
}

TEST(WeightPass, BFloat16QuotientDiffersWhereTwoRoundingsDo) {
  const float scale = 0.0021F;
  const WeightEncoder once(scale, Quotient::kFloat32);
  const WeightEncoder twice(scale, Quotient::kBFloat16);
  int differences = 0;
  for (uint32_t bits = 0; bits < 0x7f80; ++bits) {
    const BFloat16 value{static_cast<uint16_t>(bits)};
    const float quotient = core::round_to_bf16(core::to_float(value) / scale);
    ASSERT_EQ(twice.encode(value), core::float_to_e4m3(quotient)) << bits;
    differences += static_cast<int>(once.encode(value) != twice.encode(value));
  }
  EXPECT_GT(differences, 0);
}

TEST(WeightPass, AmaxSeesTheLastElementAndWhatIsNotFinite) {
  core::ThreadPool pool(2);
  core::Buffer weight = make_weight(300, 1001);
  auto* values = static_cast<BFloat16*>(weight.data());
  values[300 * 1001 - 1] = core::to_bf16(-9.5F);
  EXPECT_EQ(weight_amax(weight.view(), pool), 9.5F);
  values[5] = core::to_bf16(std::numeric_limits<float>::quiet_NaN());
  EXPECT_FALSE(std::isfinite(weight_amax(weight.view(), pool)));
}

TEST(WeightPass, WeightedMagnitudesCountColumns) {
  core::ThreadPool pool(1);
  core::Buffer weight(core::DType::kBF16, {2, 3});
  const float values[] = {1, -2, 4, 1, 2, -1};
  for (size_t i = 0; i < 6; ++i)
    static_cast<BFloat16*>(weight.data())[i] = core::to_bf16(values[i]);
  const std::vector<double> columns = {10, 100, 1000};
  const std::vector<double> found = weighted_magnitudes(weight.view(), columns, pool);
  EXPECT_EQ(found[magnitude_index(core::to_bf16(1.0F))], 10 + 10 + 1000);
  EXPECT_EQ(found[magnitude_index(core::to_bf16(2.0F))], 200);
  EXPECT_EQ(found[magnitude_index(core::to_bf16(4.0F))], 1000);
}

TEST(WeightPass, SumsDoNotDependOnThreads) {
  core::Buffer weight = make_weight(517, 129);
  std::vector<double> columns(129);
  for (size_t i = 0; i < columns.size(); ++i) columns[i] = 1.0 / static_cast<double>(i + 3);
  core::ThreadPool one(1);
  core::ThreadPool three(3);
  EXPECT_EQ(weighted_magnitudes(weight.view(), columns, one),
            weighted_magnitudes(weight.view(), columns, three));
  std::vector<double> sums_one(129, 0);
  std::vector<double> sums_three(129, 0);
  add_column_squares(weight.view(), sums_one, one);
  add_column_squares(weight.view(), sums_three, three);
  EXPECT_EQ(sums_one, sums_three);
  EXPECT_GT(sums_one[0], 0);
}

}  // namespace
}  // namespace tandem::quantize
