// gelu_product() against product() and gelu_operand(), bit for bit; that it leaves nothing behind;
// and that a row's bits do not depend on its company.
#include "ops/cuda/gelu_product.h"

#include "ops/cuda/row_ops.h"
#include "tests/gpu/row_support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;
using tests::TestOperand;

constexpr float kGateScale = 0.011F;
constexpr float kUpScale = 0.007F;

struct Case {
  PackedType type;
  int intermediate;
  int in_features;
  int num_multiprocessors;
  float out_scale;  // 0: a BF16 operand
  bool divided;     // some set belongs to two thread blocks
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return (info.param.type == PackedType::kFp8 ? "fp8_" : "bf16_") +
         std::to_string(info.param.in_features) + "_to_" + std::to_string(info.param.intermediate) +
         "_on_" + std::to_string(info.param.num_multiprocessors);
}

class GeluProduct : public testing::TestWithParam<Case> {
 protected:
  GeluProduct()
      : weight_(make_gated_linear(GetParam().type, GetParam().intermediate, GetParam().in_features,
                                  GetParam().num_multiprocessors)),
        exchange_(gelu_exchange_bytes(weight_, ops::cuda::kMaxProductRows)) {
    const auto count =
        2 * static_cast<size_t>(GetParam().intermediate) * static_cast<size_t>(in_features());
    DeviceBuffer rows;
    if (fp8()) {
      rows = tests::to_device(tests::random_e4m3(count, 7, 0x40));
    } else {
      rows = tests::to_device(tests::random_bf16(count, 7, 4.0F));
    }
    pack_rows({}, weight_, rows.data(), 0, weight_.out_features);
    TANDEM_CUDA_CHECK(cudaMemset(exchange_.data(), 0, exchange_.size_bytes()));
    tests::synchronize();
  }

  bool fp8() const { return GetParam().type == PackedType::kFp8; }
  int in_features() const { return GetParam().in_features; }

  DeviceBuffer operand_of(const std::vector<BFloat16>& x, int num_tiles) const {
    DeviceBuffer operand = tests::poisoned(static_cast<size_t>(num_tiles) * 8 *
                                           static_cast<size_t>(in_features()) * 2);
    ops::cuda::rows_to_operand({}, tests::to_device(x).as<uint16_t>(), num_tiles * 8, in_features(),
                               fp8() ? 0.037F : 0.0F, operand.data(), num_tiles);
    tests::synchronize();
    return operand;
  }

  // Bits of the result [8 * num_tiles, intermediate].
  std::vector<uint16_t> bits_of(TestOperand& out, int num_tiles) const {
    tests::synchronize();
    out.read();
    EXPECT_TRUE(out.guard_intact());
    std::vector<uint16_t> bits;
    for (int row = 0; row < num_tiles * 8; ++row)
      for (int column = 0; column < GetParam().intermediate; ++column)
        bits.push_back(out.bits(row, column));
    return bits;
  }

  std::vector<uint16_t> in_one(const DeviceBuffer& operand, int num_tiles, bool dependent = false) {
    TestOperand out(num_tiles * 8, GetParam().intermediate, GetParam().out_scale);
    gelu_product({nullptr, dependent}, weight_, operand.data(), num_tiles,
                 {kGateScale, kUpScale, out.view(), exchange_.data()});
    return bits_of(out, num_tiles);
  }

  std::vector<uint16_t> in_two(const DeviceBuffer& operand, int num_tiles) const {
    TestOperand out(num_tiles * 8, GetParam().intermediate, GetParam().out_scale);
    const DeviceBuffer sums =
        tests::poisoned(static_cast<size_t>(weight_.partial_bytes(num_tiles * 8)));
    product({}, weight_, operand.data(), num_tiles, sums.as<float>());
    ops::cuda::gelu_operand(
        {}, {num_tiles * 8, GetParam().intermediate,
             weight_.partials(sums.as<float>(), num_tiles * 8), kGateScale, kUpScale, out.view()});
    return bits_of(out, num_tiles);
  }

  void expect_product_and_operand(std::initializer_list<int> tile_counts) {
    ASSERT_TRUE(takes_gelu_product(weight_));
    EXPECT_EQ(weight_.max_pieces > 1, GetParam().divided);
    for (const int tiles : tile_counts) {
      SCOPED_TRACE(tiles);
      const auto x = tests::random_bf16(
          static_cast<size_t>(tiles * 8) * static_cast<size_t>(in_features()), 11);
      const DeviceBuffer operand = operand_of(x, tiles);
      const auto expected = in_two(operand, tiles);
      EXPECT_GT(std::ranges::count_if(expected, [](uint16_t bits) { return (bits & 0x7f) != 0; }),
                static_cast<int64_t>(expected.size()) / 4);
      EXPECT_TRUE(in_one(operand, tiles) == expected);
      expect_no_flags();
      EXPECT_TRUE(in_one(operand, tiles, true) == expected) << "again";
      expect_no_flags();
    }
  }

  void expect_no_flags() const {
    // Flags lie in front of the sums.
    const auto flags =
        tests::to_host<uint32_t>(exchange_, gelu_exchange_bytes(weight_, 0) / sizeof(uint32_t));
    EXPECT_TRUE(std::ranges::all_of(flags, [](uint32_t flag) { return flag == 0; }));
  }

  PackedLinear weight_;
  DeviceBuffer exchange_;
};

TEST_P(GeluProduct, IsProductAndGeluOperand) {
  expect_product_and_operand({1, 2, 4, 8, 12, 16});
}

// Another thread block's sums go round the ring: test.sh has racecheck leave it out.
TEST_P(GeluProduct, IsThatOfMostRowsToo) {
  expect_product_and_operand({20, 24});
}

TEST_P(GeluProduct, ARowHasTheSameBitsInEveryCompany) {
  const auto x = tests::random_bf16(size_t{192} * static_cast<size_t>(in_features()), 5);
  const auto all = in_one(operand_of(x, 24), 24);
  for (const int tiles : {1, 2, 4, 8, 12, 16, 20}) {
    const std::vector<BFloat16> some(x.begin(),
                                     x.begin() + static_cast<int64_t>(tiles) * 8 * in_features());
    const std::vector<uint16_t> same(
        all.begin(), all.begin() + static_cast<int64_t>(tiles) * 8 * GetParam().intermediate);
    EXPECT_TRUE(in_one(operand_of(some, tiles), tiles) == same) << tiles << " tiles";
  }
}

// Sets that are whole, cut in half, cut anywhere; features that fill no set; the 12B's division.
INSTANTIATE_TEST_SUITE_P(Shapes, GeluProduct,
                         testing::Values(Case{PackedType::kFp8, 64, 128, 132, 0.013F, false},
                                         Case{PackedType::kFp8, 896, 256, 132, 0.013F, true},
                                         Case{PackedType::kFp8, 96, 160, 1, 0.013F, false},
                                         Case{PackedType::kFp8, 352, 672, 5, 0.0F, true},
                                         Case{PackedType::kFp8, 8192, 128, 132, 0.013F, false},
                                         Case{PackedType::kFp8, 15360, 480, 132, 0.013F, false},
                                         Case{PackedType::kFp8, 21504, 480, 132, 0.013F, true},
                                         Case{PackedType::kBF16, 512, 128, 132, 0.0F, false},
                                         Case{PackedType::kBF16, 896, 256, 132, 0.013F, true},
                                         Case{PackedType::kBF16, 352, 672, 5, 0.0F, true}),
                         name_of);

// Different weights use one exchange in turn, as the layers of both models do.
TEST(GeluProductExchange, IsSharedByWeights) {
  const PackedLinear large = make_gated_linear(PackedType::kFp8, 896, 256, 132);
  const PackedLinear small = make_gated_linear(PackedType::kFp8, 320, 128, 7);
  DeviceBuffer exchange(std::max(gelu_exchange_bytes(large, 128), gelu_exchange_bytes(small, 128)));
  TANDEM_CUDA_CHECK(cudaMemset(exchange.data(), 0, exchange.size_bytes()));
  fill_random({}, large, 1);
  fill_random({}, small, 2);
  const DeviceBuffer operand = tests::to_device(std::vector<uint8_t>(size_t{128} * 256, 0x31));
  const auto run = [&](const PackedLinear& weight, int tiles) {
    TestOperand out(tiles * 8, weight.out_features / 2, 0.05F);
    gelu_product({}, weight, operand.data(), tiles, {0.01F, 0.01F, out.view(), exchange.data()});
    tests::synchronize();
    out.read();
    std::vector<uint16_t> bits;
    for (int column = 0; column < weight.out_features / 2; ++column)
      bits.push_back(out.bits(tiles * 8 - 1, column));
    return bits;
  };
  const auto first_large = run(large, 16);
  const auto first_small = run(small, 1);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(run(large, 1) == first_large);
    EXPECT_TRUE(run(small, 16) == first_small);
    EXPECT_TRUE(run(large, 16) == first_large);
    EXPECT_TRUE(run(small, 2) == first_small);
  }
}

TEST(GeluProductExchange, SetsOfManyPiecesAreLeftToTwoKernels) {
  EXPECT_FALSE(takes_gelu_product(make_gated_linear(PackedType::kFp8, 64, 4096, 132)));
  EXPECT_FALSE(takes_gelu_product(make_packed_linear(PackedType::kFp8, 128, 128, 132)));
}

}  // namespace
}  // namespace tandem
