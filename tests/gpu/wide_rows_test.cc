// The kernels between the products of prompts against ops/reference, and against those of few rows.
#include "ops/cuda/wide_rows.h"

#include <algorithm>

#include "ops/cuda/packed_linear.h"
#include "tests/gpu/row_support.h"
#include "tests/gpu/wide_support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;
using tests::bf16_step;
using tests::Bf16Rows;
using tests::norm_of;
using tests::random_bf16;
using tests::WideTestOperand;

constexpr float kPostEps = 0.02F;
constexpr float kNextEps = 0.07F;

void expect_operand(WideTestOperand& operand, const Bf16Rows& rows, int num_rows, int columns) {
  operand.read();
  int failures = 0;
  for (int r = 0; r < num_rows; ++r)
    for (int c = 0; c < columns && failures < 5; ++c) {
      const float x = core::to_float(rows[static_cast<size_t>(r * columns + c)]);
      const uint8_t expected = core::float_to_e4m3(x / operand.scale());
      // Two zeros are one value.
      if (operand.value(r, c) == core::e4m3_to_float(expected)) continue;
      ++failures;
      ADD_FAILURE() << "row " << r << " column " << c << ": expected E4M3 of " << x << " / "
                    << operand.scale() << ", got " << operand.value(r, c);
    }
  EXPECT_TRUE(operand.guard_intact());
}

// Every BF16 value there is, over scales that divide exactly and ones that do not.
TEST(WideOperandTest, QuotientsAreRoundedOnce) {
  constexpr int kColumns = 8192;
  for (const float scale : {1.0F, 0.5F, 3.0F, 0.037F, 1.0F / 448, 0.0123F, 7.3e-5F}) {
    SCOPED_TRACE(scale);
    Bf16Rows rows;
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const BFloat16 value{static_cast<uint16_t>(bits)};
      const bool finite = (bits & 0x7f80) != 0x7f80;
      rows.push_back(finite ? value : BFloat16{});
    }
    WideTestOperand operand(rows, 8, kColumns, scale);
    expect_operand(operand, rows, 8, kColumns);
  }
}

struct Case {
  int hidden;
  int num_rows;
  float layer_scalar;
};
class WideRows : public testing::TestWithParam<Case> {};
std::string name_of(const testing::TestParamInfo<Case>& info) {
  return std::to_string(info.param.hidden) + "_rows_" + std::to_string(info.param.num_rows);
}
INSTANTIATE_TEST_SUITE_P(Shapes, WideRows,
                         testing::Values(Case{32, 3, 1.0F}, Case{256, 41, 0.7F},
                                         Case{1536, 5, 0.31F}, Case{3840, 70, 0.07F},
                                         Case{5376, 9, 1.0F}, Case{8192, 2, 0.5F}),
                         name_of);

struct Next {
  Next(int num_rows, int hidden)
      : weight(random_bf16(static_cast<size_t>(hidden), 31)),
        weight_device(tests::to_device(weight)),
        normed(tests::poisoned(static_cast<size_t>(num_rows * hidden) * 2)),
        operand(num_rows, hidden, 0.013F) {}
  ops::cuda::WideNorm view() const {
    return {weight_device.as<uint16_t>(), kNextEps, operand.view(), normed.as<uint16_t>()};
  }
  // Of x as the device has it.
  void expect_norm_of(const Bf16Rows& x, int num_rows, int hidden) {
    const Bf16Rows want = norm_of(x, weight, kNextEps);
    const auto got = tests::to_host<BFloat16>(
        normed, static_cast<size_t>(num_rows) * static_cast<size_t>(hidden));
    tests::expect_rows("norm", want, got, hidden,
                       [&](size_t i) { return 1.01F * bf16_step(core::to_float(want[i])); });
    expect_operand(operand, got, num_rows, hidden);
  }
  Bf16Rows weight;
  DeviceBuffer weight_device, normed;
  WideTestOperand operand;
};

TEST_P(WideRows, ResidualThenNorm) {
  const auto [hidden, num_rows, scalar] = GetParam();
  const auto count = static_cast<size_t>(hidden) * static_cast<size_t>(num_rows);
  const Bf16Rows y = random_bf16(count, 1, 3.0F);
  const Bf16Rows before = random_bf16(count, 2);
  const Bf16Rows post = random_bf16(static_cast<size_t>(hidden), 3);
  const auto y_device = tests::to_device(y);
  const auto x_device = tests::to_device(before);
  const auto post_device = tests::to_device(post);
  Next next(num_rows, hidden);
  ops::cuda::wide_residual({}, {.num_rows = num_rows,
                                .hidden = hidden,
                                .y = y_device.as<uint16_t>(),
                                .post_weight = post_device.as<uint16_t>(),
                                .eps = kPostEps,
                                .layer_scalar = scalar,
                                .x = x_device.as<uint16_t>(),
                                .next = next.view()});
  tests::synchronize();
  const auto x = tests::to_host<BFloat16>(x_device, count);
  const Bf16Rows branch = norm_of(y, post, kPostEps);
  Bf16Rows want;
  for (size_t i = 0; i < count; ++i) {
    const float sum = core::round_to_bf16(core::to_float(before[i]) + core::to_float(branch[i]));
    want.push_back(core::to_bf16(sum * scalar));
  }
  // A step of the norm, carried through two roundings.
  tests::expect_rows("residual", want, x, hidden, [&](size_t i) {
    return scalar * 1.01F * bf16_step(core::to_float(branch[i])) +
           scalar * bf16_step(core::to_float(want[i]) / scalar) +
           bf16_step(core::to_float(want[i]));
  });
  next.expect_norm_of(x, num_rows, hidden);
}

TEST_P(WideRows, EmbeddingThenNorm) {
  const auto [hidden, num_rows, scalar] = GetParam();
  constexpr int kVocab = 160;
  constexpr float kScale = 15.5F;
  const Bf16Rows table = random_bf16(static_cast<size_t>(kVocab * hidden), 7);
  const auto packed =
      ops::cuda::make_packed_linear(ops::cuda::PackedType::kBF16, kVocab, hidden, 8);
  const auto rows_device = tests::to_device(table);
  pack_rows({}, packed, rows_device.data(), 0, kVocab);
  std::vector<int32_t> tokens;
  for (int r = 0; r < num_rows; ++r) tokens.push_back(r * 77 % kVocab);
  const auto tokens_device = tests::to_device(tokens);
  const auto count = static_cast<size_t>(hidden) * static_cast<size_t>(num_rows);
  const DeviceBuffer x_device = tests::poisoned(count * 2);
  Next next(num_rows, hidden);
  ops::cuda::wide_embed({}, {.num_rows = num_rows,
                             .hidden = hidden,
                             .tokens = tokens_device.as<int32_t>(),
                             .table = {packed.data.as<uint8_t>(), packed.set_blocks, kScale},
                             .x = x_device.as<uint16_t>(),
                             .next = next.view()});
  tests::synchronize();
  const auto x = tests::to_host<BFloat16>(x_device, count);
  for (size_t i = 0; i < count; ++i) {
    const auto row = static_cast<size_t>(tokens[i / static_cast<size_t>(hidden)]);
    const float value =
        core::to_float(table[row * static_cast<size_t>(hidden) + i % static_cast<size_t>(hidden)]);
    ASSERT_EQ(x[i].bits, core::to_bf16(value * kScale).bits) << "element " << i;
  }
  next.expect_norm_of(x, num_rows, hidden);
}

TEST(GatherRows, AreRowsAndTheHeadsOperand) {
  constexpr int kHidden = 416;
  const Bf16Rows hidden = random_bf16(100 * kHidden, 51);
  std::vector<int32_t> sources;
  for (int i = 0; i < 24; ++i) sources.push_back(i == 20 ? -1 : (i * 37 + 5) % 100);
  const auto hidden_d = tests::to_device(hidden);
  const auto sources_d = tests::to_device(sources);
  const DeviceBuffer out = tests::poisoned(24 * kHidden * 2);
  tests::TestOperand operand(24, kHidden, 0.0F);
  gather_rows({}, hidden_d.as<uint16_t>(), sources_d.as<int32_t>(), 24, kHidden, out.as<uint16_t>(),
              operand.view());
  tests::synchronize();
  Bf16Rows want;
  for (const int source : sources)
    for (int c = 0; c < kHidden; ++c)
      want.push_back(source < 0 ? BFloat16{} : hidden[static_cast<size_t>(source * kHidden + c)]);
  const auto got = tests::to_host<BFloat16>(out, want.size());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i].bits, want[i].bits) << i;
  operand.read();
  operand.expect("operand", want, 24, kHidden);
}

}  // namespace
}  // namespace tandem
