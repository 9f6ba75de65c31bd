// row_product() against product() and the kernels around it, bit for bit: operands as they are,
// norms, the assistant's input, gate and up.
#include "ops/cuda/row_product.h"

#include "tests/gpu/row_support.h"

namespace tandem {
namespace {

using ops::cuda::AssistantInput;
using ops::cuda::DeviceBuffer;
using ops::cuda::NormedRows;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;
using tests::HostSums;
using tests::TestOperand;

constexpr float kInputScale = 0.037F;
constexpr float kSumScale = 0.83F;

struct Case {
  PackedType type;
  bool gated;
  int out_features;
  int in_features;
  int num_multiprocessors;
  int set_blocks, num_shares;  // of the sums in front
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return (c.type == PackedType::kFp8 ? "fp8_" : "bf16_") + std::to_string(c.in_features) + "_to_" +
         std::to_string(c.out_features) + (c.gated ? "_gated_on_" : "_on_") +
         std::to_string(c.num_multiprocessors) + "_behind_" + std::to_string(c.num_shares);
}

class RowProduct : public testing::TestWithParam<Case> {
 protected:
  RowProduct()
      : weight_(GetParam().gated
                    ? make_gated_linear(GetParam().type, GetParam().out_features,
                                        GetParam().in_features, GetParam().num_multiprocessors)
                    : make_packed_linear(GetParam().type, GetParam().out_features,
                                         GetParam().in_features, GetParam().num_multiprocessors)) {
    fill_random({}, weight_, 5);
    tests::synchronize();
  }

  int in_features() const { return GetParam().in_features; }
  float input_scale() const { return GetParam().type == PackedType::kFp8 ? kInputScale : 0.0F; }

  // What comes out of a product: rows of partial sums, or of the joined operand, as bits.
  using Bits = std::vector<uint32_t>;
  Bits sums_of(const DeviceBuffer& partials, int num_rows) const {
    tests::synchronize();
    const auto all = tests::to_host<uint32_t>(partials, partials.size_bytes() / 4);
    const ops::cuda::Partials plan = weight_.partials(nullptr, 8);
    Bits bits;
    for (int set = 0; set < weight_.num_sets; ++set)
      for (int piece = 0; piece < plan.num_pieces(set); ++piece)
        for (int i = 0; i < num_rows * ops::cuda::kSetColumns; ++i)
          bits.push_back(all[static_cast<size_t>(
              (set * plan.max_pieces + piece) * 8 * ops::cuda::kSetColumns + i)]);
    return bits;
  }
  Bits joined_of(TestOperand& out, int num_rows) const {
    tests::synchronize();
    out.read();
    EXPECT_TRUE(out.guard_intact());
    Bits bits;
    for (int row = 0; row < num_rows; ++row)
      for (int column = 0; column < weight_.out_features / 2; ++column)
        bits.push_back(out.bits(row, column));
    return bits;
  }

  // Both ways end here: `multiply` is handed where results go.
  template <typename Multiply>
  Bits bits_of(int num_rows, const Multiply& multiply) {
    if (weight_.gated) {
      TestOperand out(8, weight_.out_features / 2, 0.02F);
      multiply(
          {.partials = nullptr, .gate_scale = 0.011F, .up_scale = 0.007F, .joined = out.view()});
      return joined_of(out, num_rows);
    }
    const auto partials = tests::poisoned(static_cast<size_t>(weight_.partial_bytes(8)));
    multiply({.partials = partials.as<float>()});
    return sums_of(partials, num_rows);
  }
  Bits expected_of(const void* operand, int num_rows) {
    return bits_of(num_rows, [&](const ops::cuda::RowResults& results) {
      const auto sums = tests::poisoned(static_cast<size_t>(weight_.partial_bytes(8)));
      float* const target = weight_.gated ? sums.as<float>() : results.partials;
      product({}, weight_, operand, 1, target);
      if (weight_.gated)
        ops::cuda::gelu_operand({}, {8, weight_.out_features / 2, weight_.partials(target, 8),
                                     results.gate_scale, results.up_scale, results.joined});
      tests::synchronize();
    });
  }

  // Whether the card has room for a share; Hopper has for all of these.
  bool fits() const {
    EXPECT_TRUE(takes_row_product(weight_) || ops::cuda::max_shared_bytes() < 224 * 1024);
    return takes_row_product(weight_);
  }

  PackedLinear weight_;
};

TEST_P(RowProduct, TakesAnOperand) {
  if (!fits()) GTEST_SKIP() << "shares that fit into shared memory";
  const auto x = tests::to_device(tests::random_bf16(8 * static_cast<size_t>(in_features()), 3));
  const auto operand = tests::poisoned(16 * static_cast<size_t>(in_features()));
  ops::cuda::rows_to_operand({}, x.as<uint16_t>(), 8, in_features(), input_scale(), operand.data(),
                             1);
  for (int rows = 1; rows <= ops::cuda::kFewRows; ++rows) {
    const auto got = bits_of(rows, [&](const ops::cuda::RowResults& results) {
      row_product({}, weight_, operand.data(), rows, results);
    });
    EXPECT_EQ(got, expected_of(operand.data(), rows)) << rows;
  }
}

TEST_P(RowProduct, MakesNorms) {
  const Case& c = GetParam();
  const int hidden = in_features();
  if (!fits()) GTEST_SKIP() << "shares that fit into shared memory";
  if (hidden > ops::cuda::kMaxNormedHidden) GTEST_SKIP() << "norms of shorter rows";
  HostSums sums(8, hidden, c.set_blocks, c.num_shares);
  sums.fill_normal(7, 0.7F, ops::cuda::kFewRows);
  const auto count = static_cast<size_t>(8 * hidden);
  const auto x = tests::to_device(tests::random_bf16(count, 2, 2.0F));
  const auto post = tests::to_device(tests::random_bf16(static_cast<size_t>(hidden), 3));
  const auto norm = tests::to_device(tests::random_bf16(static_cast<size_t>(hidden), 4));
  for (const bool starts : {false, true})
    for (int rows = 1; rows <= ops::cuda::kFewRows; ++rows) {
      SCOPED_TRACE(rows);
      NormedRows normed{.hidden = hidden, .sums = sums.upload(), .scale = kSumScale};
      ASSERT_TRUE(takes_normed_rows(normed.sums, hidden));
      normed.eps = 0.02F;
      normed.next_eps = 0.07F;
      normed.weight = norm.as<uint16_t>();
      normed.input_scale = input_scale();
      const auto old_x = tests::to_device(tests::to_host<uint16_t>(x, count));
      const auto new_x = tests::poisoned(count * 2);
      normed.new_x = new_x.as<uint16_t>();
      TestOperand operand(8, hidden, input_scale());
      const ops::cuda::NextNorm next{norm.as<uint16_t>(), normed.next_eps, operand.view(), nullptr};
      if (starts) {
        ops::cuda::start_layer({},
                               {rows, hidden, normed.sums, kSumScale, old_x.as<uint16_t>(), next});
      } else {
        normed.post_weight = post.as<uint16_t>();
        normed.layer_scalar = 0.75F;
        normed.x = x.as<uint16_t>();
        ops::cuda::residual_norm({}, {rows, hidden, normed.sums, kSumScale, post.as<uint16_t>(),
                                      normed.eps, normed.layer_scalar, old_x.as<uint16_t>(), next});
      }
      const auto expected = expected_of(operand.view().data, rows);
      const auto got = bits_of(rows, [&](const ops::cuda::RowResults& results) {
        row_product({}, weight_, normed, rows, results);
      });
      EXPECT_EQ(got, expected);
      const auto row_count = static_cast<size_t>(rows * hidden);
      EXPECT_EQ(tests::to_host<uint16_t>(new_x, row_count),
                tests::to_host<uint16_t>(old_x, row_count));
      EXPECT_EQ(tests::to_host<uint16_t>(new_x, count)[row_count], 0xffff) << "beyond the rows";
    }
}

TEST_P(RowProduct, MakesTheAssistantsInput) {
  const Case& c = GetParam();
  if (!fits()) GTEST_SKIP() << "shares that fit into shared memory";
  if (in_features() % 128 != 0) GTEST_SKIP() << "two halves of 64 features";
  const int hidden = in_features() / 2;
  const PackedLinear table = ops::cuda::make_packed_linear(PackedType::kBF16, 256, hidden, 4);
  fill_random({}, table, 9);
  HostSums sums(8, hidden, c.set_blocks, c.num_shares);
  sums.fill_normal(8, 0.7F, 8);
  const auto tokens = tests::to_device(std::vector<int32_t>{200, 3, 0, 0, 0, 0, 0, 0});
  const auto slots = tests::to_device(std::vector<int32_t>{2, -1, 0, 0, 0, 0, 0, 0});
  const auto states = tests::to_device(tests::random_bf16(static_cast<size_t>(3 * hidden), 6));
  for (const bool stored : {true, false})
    for (int rows = 1; rows <= ops::cuda::kFewRows; ++rows) {
      SCOPED_TRACE(rows);
      TestOperand operand(8, in_features(), input_scale());
      const AssistantInput input{.num_rows = rows,
                                 .hidden = hidden,
                                 .tokens = tokens.as<int32_t>(),
                                 .table = {table.data.as<uint8_t>(), table.set_blocks, 11.0F},
                                 .states = stored ? states.as<uint16_t>() : nullptr,
                                 .slots = slots.as<int32_t>(),
                                 .state_sums = sums.upload(),
                                 .state_scale = kSumScale,
                                 .operand = operand.view()};
      ops::cuda::assistant_input({}, input);
      const auto expected = expected_of(operand.view().data, rows);
      const auto got = bits_of(rows, [&](const ops::cuda::RowResults& results) {
        row_product({}, weight_, input, results);
      });
      EXPECT_EQ(got, expected);
    }
}

constexpr PackedType kFp8 = PackedType::kFp8;
constexpr PackedType kBF16 = PackedType::kBF16;
INSTANTIATE_TEST_SUITE_P(
    Shapes, RowProduct,
    testing::Values(
        // The assistant's: q, gate and up, o, down, pre_projection.
        Case{kFp8, false, 4096, 1024, 132, 128, 50}, Case{kFp8, true, 8192, 1024, 132, 128, 50},
        Case{kFp8, false, 1024, 4096, 132, 32, 40}, Case{kFp8, false, 1024, 8192, 132, 32, 40},
        Case{kBF16, false, 1024, 7680, 132, 32, 40},
        // Shares that begin anywhere, few pieces, rows of half a block.
        Case{kFp8, false, 336, 416, 7, 13, 5}, Case{kBF16, false, 144, 96, 3, 3, 2},
        Case{kBF16, true, 224, 256, 4, 8, 7}, Case{kFp8, true, 64, 640, 1, 20, 31}),
    name_of);

TEST(RowProductShapes, ThatDoNotFit) {
  // 28 blocks a share are 114 KB and fit; a quarter of the multiprocessors takes four times as
  // much.
  EXPECT_TRUE(takes_row_product(ops::cuda::make_packed_linear(kFp8, 8192, 1024, 100)));
  EXPECT_FALSE(takes_row_product(ops::cuda::make_packed_linear(kFp8, 8192, 1024, 30)));
  EXPECT_FALSE(takes_row_product(ops::cuda::make_gated_linear(kFp8, 1024, 1024, 132)));
}

}  // namespace
}  // namespace tandem
