// The product of many rows against a sum in double, the feed-forward block's against the plain one,
// and the promise that a row's bits depend on nothing but the row.
#include <cmath>

#include "core/e4m3.h"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/wide_product.h"
#include "tests/gpu/wide_support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;
using tests::random_bf16;
using tests::WideTestOperand;

constexpr float kInputScale = 0.037F;

struct Weight {
  Weight(int out_features, int in_features, bool gated = false)
      : out(out_features),
        in(in_features),
        packed(gated ? make_gated_linear(PackedType::kFp8, out_features / 2, in_features, 132)
                     : make_packed_linear(PackedType::kFp8, out_features, in_features, 132)) {
    const std::vector<uint8_t> bytes =
        tests::random_e4m3(static_cast<size_t>(out) * static_cast<size_t>(in), 7, 0x50);
    for (const uint8_t byte : bytes) values.push_back(core::e4m3_to_float(byte));
    pack_rows({}, packed, tests::to_device(bytes).data(), 0, out);
    tests::synchronize();
  }

  int out, in;
  PackedLinear packed;
  std::vector<float> values;  // [out, in]
};

using Rows = std::vector<BFloat16>;

// bf16(sum * scale) [num_rows, out] of rows x [num_rows, in], which are rows `place` on of the
// operand; everything else in it is NaN.
Rows multiply(const Weight& weight, const Rows& x, int tile_rows, float scale = 1.0F,
              int place = 0) {
  const auto num_rows = static_cast<int>(x.size()) / weight.in;
  Rows padded(static_cast<size_t>(place * weight.in), BFloat16{0x7fff});
  padded.insert(padded.end(), x.begin(), x.end());
  const WideTestOperand operand(padded, place + num_rows, weight.in, kInputScale);
  const auto total = static_cast<size_t>(place + num_rows) * static_cast<size_t>(weight.out);
  const DeviceBuffer out = tests::poisoned((total + 256) * 2);
  wide_product({}, weight.packed, operand.view(), place + num_rows,
               {.ends = {weight.out, weight.out, weight.out}, .scales = {scale, 0.0F, 0.0F}},
               out.as<uint16_t>(), {.tile_rows = tile_rows});
  tests::synchronize();
  Rows result = tests::to_host<BFloat16>(out, total + 256);
  for (size_t i = total; i < total + 256; ++i) EXPECT_EQ(result[i].bits, 0xffff) << "beyond";
  result.resize(total);
  result.erase(result.begin(), result.begin() + static_cast<int64_t>(place) * weight.out);
  return result;
}

std::vector<uint16_t> bits_of(const Rows& rows) {
  std::vector<uint16_t> bits;
  for (const BFloat16 value : rows) bits.push_back(value.bits);
  return bits;
}

struct Shape {
  int out;
  int in;
};
class WideProduct : public tests::OfPrompts<testing::TestWithParam<Shape>> {};
std::string name_of(const testing::TestParamInfo<Shape>& info) {
  return std::to_string(info.param.in) + "_to_" + std::to_string(info.param.out);
}
// Inputs that are no multiple of 128, features that are none of 128, an odd number of sets, the
// 12B's longest sum.
INSTANTIATE_TEST_SUITE_P(Shapes, WideProduct,
                         testing::Values(Shape{256, 256}, Shape{576, 256}, Shape{256, 896},
                                         Shape{32, 32}, Shape{384, 160}, Shape{256, 15360},
                                         Shape{3840, 4096}),
                         name_of);

// The tensor cores keep 13 bits below the largest of 32 products and the sum so far; a stage of 128
// inputs has four such steps, so what is lost is below 4 * 2^-13 of the stage's largest partial
// sum, which the sum of magnitudes of the stage bounds; FP32 and the rounding to BF16 come on top.
TEST_P(WideProduct, MatchesASumInDouble) {
  const Weight weight(GetParam().out, GetParam().in);
  constexpr int kRows = 37;
  constexpr float kScale = 0.25F;
  const Rows x = random_bf16(static_cast<size_t>(kRows * weight.in), 11);
  const Rows got = multiply(weight, x, 64, kScale);
  int failures = 0;
  double worst = 0;
  for (int row = 0; row < kRows; row += weight.in > 1000 ? 12 : 1) {
    for (int column = 0; column < weight.out && failures < 5; ++column) {
      double expected = 0;
      double magnitude = 0;
      for (int k = 0; k < weight.in; ++k) {
        const float input = core::to_float(x[static_cast<size_t>(row * weight.in + k)]);
        const double term = double{core::e4m3_to_float(core::float_to_e4m3(input / kInputScale))} *
                            double{weight.values[static_cast<size_t>(column * weight.in + k)]};
        expected += term;
        magnitude += std::abs(term);
      }
      expected *= double{kScale};
      magnitude *= double{kScale};
      const double value =
          double{core::to_float(got[static_cast<size_t>(row * weight.out + column)])};
      worst =
          std::max(worst, (std::abs(value - expected) - std::abs(expected) * 0x1p-8) / magnitude);
      if (std::abs(value - expected) <= std::abs(expected) * 0x1p-8 + magnitude * 0x1p-12) continue;
      ++failures;
      ADD_FAILURE() << "row " << row << " feature " << column << ": expected " << expected
                    << ", got " << value;
    }
  }
  std::printf("beyond rounding to BF16: at most %.1e of the sum of magnitudes\n", worst);
}

TEST_P(WideProduct, BitsOfARowDoNotDependOnItsCompany) {
  const Weight weight(GetParam().out, GetParam().in);
  constexpr int kRows = 300;
  const Rows x = random_bf16(static_cast<size_t>(kRows * weight.in), 5);
  const auto all = bits_of(multiply(weight, x, 256));
  for (const int tile : {64, 128})
    EXPECT_EQ(bits_of(multiply(weight, x, tile)), all) << "tiles of " << tile;
  const auto expect_rows = [&](int first, int count, int tile, int place) {
    const auto row_at = [](int row, int width) { return static_cast<int64_t>(row) * width; };
    const Rows some(x.begin() + row_at(first, weight.in),
                    x.begin() + row_at(first + count, weight.in));
    const std::vector<uint16_t> same(all.begin() + row_at(first, weight.out),
                                     all.begin() + row_at(first + count, weight.out));
    EXPECT_EQ(bits_of(multiply(weight, some, tile, 1.0F, place)), same)
        << count << " rows from " << first << " on, placed at " << place;
  };
  expect_rows(299, 1, 0, 0);
  expect_rows(0, 1, 256, 77);
  expect_rows(100, 7, 64, 130);
  expect_rows(3, 65, 128, 1);
}

class WideGeluProduct : public tests::OfPrompts<testing::TestWithParam<int>> {};  // intermediate
INSTANTIATE_TEST_SUITE_P(Intermediate, WideGeluProduct, testing::Values(64, 192, 896),
                         testing::PrintToStringParamName());

// Of a gate and an up value in BF16, computed in double and rounded where the model rounds.
float join(float gate, float up, float scale) {
  const double g = double{gate};
  const double inner = std::sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g);
  const auto gelu = static_cast<float>(0.5 * g * (1 + std::tanh(inner)));
  const float product = core::to_float(core::to_bf16(core::to_float(core::to_bf16(gelu)) * up));
  return core::e4m3_to_float(core::float_to_e4m3(product / scale));
}

// The same sums through the plain product, joined on the host.
TEST_P(WideGeluProduct, IsTheProductThenGelu) {
  const int intermediate = GetParam();
  constexpr int kRows = 141;
  constexpr float kOutScale = 0.013F;
  const Weight weight(2 * intermediate, 288);
  const Weight gated(2 * intermediate, 288, true);
  const Rows x = random_bf16(static_cast<size_t>(kRows * weight.in), 21, 0.04F);
  const Rows gate = multiply(weight, x, 64, 0.125F);
  const Rows up = multiply(weight, x, 64, 0.5F);
  const WideTestOperand operand(x, kRows, weight.in, kInputScale);
  for (const int tile : {64, 128, 256}) {
    SCOPED_TRACE(testing::Message() << "tiles of " << tile);
    WideTestOperand out(kRows, intermediate, kOutScale);
    wide_gelu_product({}, gated.packed, operand.view(), kRows,
                      {.gate_scale = 0.125F, .up_scale = 0.5F, .out = out.view()},
                      {.tile_rows = tile});
    out.read();
    int different = 0;
    for (int row = 0; row < kRows; ++row)
      for (int c = 0; c < intermediate; ++c) {
        const auto at = static_cast<size_t>(row * 2 * intermediate + c);
        const float expected =
            join(core::to_float(gate[at]),
                 core::to_float(up[at + static_cast<size_t>(intermediate)]), kOutScale);
        const float got = out.value(row, c);
        different += got == expected ? 0 : 1;
        // One step of E4M3, where rounding once more falls the other way.
        ASSERT_NEAR(got, expected, std::max(std::abs(expected) / 7, 0x1p-9F))
            << "row " << row << " column " << c;
      }
    EXPECT_LE(different, kRows * intermediate / 1000 + 1);
    EXPECT_TRUE(out.guard_intact());
  }
}

}  // namespace
}  // namespace tandem
