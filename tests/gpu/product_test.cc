// The product against a sum in double, and the promise that a row's bits do not depend on the rows
// beside it.
#include <cmath>

#include "core/e4m3.h"
#include "ops/cuda/packed_linear.h"
#include "tests/gpu/support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;

constexpr int kMultiprocessors = 132;

struct Case {
  PackedType type;
  int out_features;
  int in_features;
  int num_shards;  // packed in pieces of this many
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return std::string(info.param.type == PackedType::kFp8    ? "fp8_"
                     : info.param.type == PackedType::kBF16 ? "bf16_"
                                                            : "fp8_weights_") +
         std::to_string(info.param.in_features) + "_to_" + std::to_string(info.param.out_features);
}

class ProductTest : public testing::TestWithParam<Case> {
 protected:
  ProductTest() : weight_(make()) {
    const Case& c = GetParam();
    const size_t count = static_cast<size_t>(c.out_features) * static_cast<size_t>(c.in_features);
    values_.resize(count);
    DeviceBuffer rows;
    if (c.type != PackedType::kBF16) {
      // Widened weights: every finite value there is, subnormal ones too.
      const std::vector<uint8_t> bytes =
          tests::random_e4m3(count, 7, c.type == PackedType::kFp8 ? 0x50 : 0x7e);
      for (size_t i = 0; i < count; ++i) values_[i] = core::e4m3_to_float(bytes[i]);
      rows = tests::to_device(bytes);
    } else {
      const auto bf16 = tests::random_bf16(count, 3, 0.1F);
      for (size_t i = 0; i < count; ++i) values_[i] = core::to_float(bf16[i]);
      rows = tests::to_device(bf16);
    }
    const int shard = (c.out_features / c.num_shards + 15) / 16 * 16;
    const int64_t row_bytes = c.in_features * (c.type == PackedType::kBF16 ? 2 : 1);
    for (int begin = 0; begin < c.out_features; begin += shard)
      ops::cuda::pack_rows({}, weight_, rows.as<uint8_t>() + begin * row_bytes, begin,
                           std::min(shard, c.out_features - begin));
    tests::synchronize();
  }

  static PackedLinear make() {
    const Case& c = GetParam();
    return make_packed_linear(c.type, c.out_features, c.in_features, kMultiprocessors);
  }

  float input_scale() const { return GetParam().type == PackedType::kFp8 ? 0.037F : 0.0F; }

  // Sums [num_rows, out_features] of the first num_rows of x.
  std::vector<float> run(const std::vector<BFloat16>& x, int num_rows, int num_tiles) {
    const int in = GetParam().in_features;
    const auto rows = tests::to_device(x);
    auto operand =
        tests::poisoned(static_cast<size_t>(num_tiles) * 8 * static_cast<size_t>(in) * 2);
    const auto partials =
        tests::poisoned(static_cast<size_t>(weight_.partial_bytes(num_tiles * 8)));
    ops::cuda::rows_to_operand({}, rows.as<uint16_t>(), num_rows, in, input_scale(), operand.data(),
                               num_tiles);
    ops::cuda::product({}, weight_, operand.data(), num_tiles, partials.as<float>());
    tests::synchronize();
    const auto pieces = tests::to_host<float>(partials, partials.size_bytes() / 4);
    const auto plan = weight_.partials(nullptr, num_tiles * 8);
    std::vector<float> sums;
    for (int row = 0; row < num_rows; ++row) {
      for (int column = 0; column < GetParam().out_features; ++column) {
        const int set = column / ops::cuda::kSetColumns;
        float sum = 0;
        for (int piece = 0; piece < plan.num_pieces(set); ++piece) {
          const int64_t line = (int64_t{set} * plan.max_pieces + piece) * plan.num_rows + row;
          const float part = pieces[static_cast<size_t>(line * ops::cuda::kSetColumns +
                                                        column % ops::cuda::kSetColumns)];
          sum = piece == 0 ? part : sum + part;
        }
        sums.push_back(sum);
      }
    }
    return sums;
  }

  PackedLinear weight_;
  std::vector<float> values_;  // [out, in]
};

TEST_P(ProductTest, MatchesASumInDouble) {
  const Case& c = GetParam();
  constexpr int kRows = 5;
  const auto x = tests::random_bf16(static_cast<size_t>(kRows * c.in_features), 11);
  const auto sums = run(x, kRows, 1);
  int failures = 0;
  double worst = 0;
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < c.out_features && failures < 5; ++column) {
      double expected = 0;
      double magnitude = 0;
      for (int k = 0; k < c.in_features; ++k) {
        float input = core::to_float(x[static_cast<size_t>(row * c.in_features + k)]);
        if (input_scale() > 0)
          input = core::e4m3_to_float(core::float_to_e4m3(input / input_scale()));
        const double term =
            double{input} * double{values_[static_cast<size_t>(column * c.in_features + k)]};
        expected += term;
        magnitude += std::abs(term);
      }
      // E4M3: the tensor cores keep 13 bits below the largest of 32 products and the sum so far, in
      // four steps at most before the sum goes to FP32; all of these lie below 2^-12 of the sum of
      // magnitudes. BF16: FP32 that may truncate, one part in 2^23 a step of 16 inputs; 2^-18 is
      // far above that. Both are far below one wrong term.
      const double tolerance = magnitude * (c.type == PackedType::kFp8 ? 0x1p-12 : 0x1p-18);
      const double got = double{sums[static_cast<size_t>(row * c.out_features + column)]};
      worst = std::max(worst, std::abs(got - expected) / magnitude);
      if (std::abs(got - expected) <= tolerance) continue;
      ++failures;
      ADD_FAILURE() << "row " << row << " feature " << column << ": expected " << expected
                    << ", got " << got;
    }
  }
  std::printf("at most %.1e of the sum of magnitudes\n", worst);
}

TEST_P(ProductTest, ARowHasTheSameBitsInEveryCompany) {
  const int in = GetParam().in_features;
  const auto out = static_cast<size_t>(GetParam().out_features);
  const auto x = tests::random_bf16(static_cast<size_t>(192 * in), 5);
  const auto all = run(x, 192, 24);
  for (const int tiles : {1, 2, 4, 8, 12, 16, 20}) {
    const auto some = run(x, tiles * 8, tiles);
    const std::vector<float> same(all.begin(), all.begin() + static_cast<int64_t>(some.size()));
    EXPECT_EQ(some, same) << tiles << " tiles";
  }
  // The last row alone, as row 0.
  const std::vector<BFloat16> last(x.end() - in, x.end());
  const auto alone = run(last, 1, 1);
  const std::vector<float> in_company(all.end() - static_cast<int64_t>(out), all.end());
  EXPECT_EQ(alone, in_company);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ProductTest,
    testing::Values(Case{PackedType::kFp8, 256, 256, 1}, Case{PackedType::kFp8, 576, 256, 2},
                    Case{PackedType::kFp8, 256, 896, 1}, Case{PackedType::kFp8, 32, 32, 1},
                    Case{PackedType::kFp8, 384, 160, 1}, Case{PackedType::kFp8, 3840, 4096, 1},
                    Case{PackedType::kFp8, 2048, 3840, 3}, Case{PackedType::kFp8, 8704, 512, 2},
                    Case{PackedType::kBF16, 128, 512, 1}, Case{PackedType::kBF16, 4096, 128, 1},
                    Case{PackedType::kBF16, 1024, 7680, 1},
                    Case{PackedType::kFp8Weights, 128, 512, 1},
                    Case{PackedType::kFp8Weights, 4096, 256, 1},
                    Case{PackedType::kFp8Weights, 320, 160, 2},
                    Case{PackedType::kFp8Weights, 20000, 1024, 1}),
    name_of);

}  // namespace
}  // namespace tandem
