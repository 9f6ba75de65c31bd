// A head rounded to E4M3 on the device against the CPU's, model/draft_head.h: the same codes and
// scales, and logits within what the order of FP32 sums moves.
#include <cmath>

#include "model/draft_head.h"
#include "ops/cuda/head.h"
#include "ops/cuda/packed_linear.h"
#include "tests/gpu/support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;

constexpr int kVocab = 5003;

// Rows of very different size, with tiny values in them; row 3 is all zeros.
core::Buffer stored_head(int64_t in_features) {
  core::Buffer head(core::DType::kBF16, {kVocab, in_features});
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  for (int64_t row = 0; row < kVocab; ++row)
    for (int64_t i = 0; i < in_features; ++i) {
      const float tiny = i % 17 == 0 ? 0x1p-13F : 1.0F;
      const float value = std::ldexp(normal(random) * tiny, static_cast<int>(row % 40) - 20);
      head.view().row<BFloat16>(row)[i] = core::to_bf16(row == 3 ? 0.0F : value);
    }
  return head;
}

struct Rounded {
  DeviceBuffer codes;   // [vocab, in]
  DeviceBuffer scales;  // [vocab, in whole sets]
};

Rounded round_on_device(const core::Buffer& stored, int in_features) {
  const auto count = static_cast<size_t>(kVocab) * static_cast<size_t>(in_features);
  const auto* values = static_cast<const BFloat16*>(stored.data());
  const auto rows = tests::to_device(std::vector<BFloat16>(values, values + count));
  Rounded rounded{tests::poisoned(count), tests::poisoned((kVocab + 127) / 128 * 128 * 4)};
  ops::cuda::round_rows({}, rows.data(), kVocab, in_features, rounded.codes.as<uint8_t>(),
                        rounded.scales.as<float>());
  tests::synchronize();
  return rounded;
}

class RoundedHead : public testing::TestWithParam<int> {};

TEST_P(RoundedHead, HasTheCodesAndScalesOfTheCpu) {
  const core::Buffer stored = stored_head(GetParam());
  const model::DraftHead expected(stored.view(), model::DraftHeadFormat::kFp8);
  const Rounded got = round_on_device(stored, GetParam());
  const size_t count = static_cast<size_t>(kVocab) * static_cast<size_t>(GetParam());
  const auto codes = tests::to_host<uint8_t>(got.codes, count);
  const auto scales = tests::to_host<float>(got.scales, kVocab);
  const auto* want_codes = static_cast<const uint8_t*>(expected.weight().weight.data);
  const auto* want_scales = static_cast<const float*>(expected.weight().weight_scales.data);
  for (size_t row = 0; row < kVocab; ++row) ASSERT_EQ(scales[row], want_scales[row]) << row;
  for (size_t i = 0; i < count; ++i)
    ASSERT_EQ(int{codes[i]}, int{want_codes[i]})
        << "value " << i % GetParam() << " of " << i / GetParam();
}

TEST_P(RoundedHead, GivesTheLogitsOfTheCpu) {
  const int in = GetParam();
  const core::Buffer stored = stored_head(in);
  const model::DraftHead cpu(stored.view(), model::DraftHeadFormat::kFp8);
  const Rounded rounded = round_on_device(stored, in);
  const auto head =
      ops::cuda::make_packed_linear(ops::cuda::PackedType::kFp8Weights, kVocab, in, 132);
  pack_rows({}, head, rounded.codes.data(), 0, kVocab);
  for (const int num_rows : {1, 20}) {
    std::vector<BFloat16> x = tests::random_bf16(static_cast<size_t>(num_rows * in), 9);
    std::vector<float> expected(static_cast<size_t>(num_rows) * kVocab);
    const core::TensorView expected_view(expected.data(), core::DType::kF32, {num_rows, kVocab});
    ops::linear({ops::Backend::kReference, nullptr},
                core::TensorView(x.data(), core::DType::kBF16, {num_rows, in}),
                std::span(&cpu.weight(), 1), std::span(&expected_view, 1));
    const int tiles = num_rows <= 8 ? 1 : 4;
    const auto x_device = tests::to_device(x);
    const auto operand = tests::poisoned(static_cast<size_t>(tiles * 8 * in * 2));
    ops::cuda::rows_to_operand({}, x_device.as<uint16_t>(), num_rows, in, 0.0F, operand.data(),
                               tiles);
    const auto sums = tests::poisoned(static_cast<size_t>(head.partial_bytes(8 * tiles)));
    product({}, head, operand.data(), tiles, sums.as<float>());
    ops::cuda::HeadLogits logits;
    logits.sums = head.partials(sums.as<float>(), 8 * tiles);
    logits.num_rows = num_rows;
    logits.vocab_size = kVocab;
    logits.scales = rounded.scales.as<float>();
    const auto out = tests::poisoned(expected.size() * 4);
    full_logits({}, logits, nullptr, num_rows, out.as<float>());
    tests::synchronize();
    const auto got = tests::to_host<float>(out, expected.size());
    int failures = 0;
    for (size_t i = 0; i < got.size() && failures < 5; ++i) {
      const size_t row = i / kVocab;
      const size_t id = i % kVocab;
      double magnitude = 0;
      for (size_t k = 0; k < static_cast<size_t>(in); ++k)
        magnitude += std::abs(
            double{core::to_float(x[row * static_cast<size_t>(in) + k])} *
            double{core::to_float(stored.view().row<BFloat16>(static_cast<int64_t>(id))[k])});
      // Both sums are FP32 over `in` terms; 2^-17 of their magnitudes is far above what that moves
      // (product_test.cc) and far below one wrong term.
      if (std::abs(double{got[i]} - double{expected[i]}) <= magnitude * 0x1p-17) continue;
      ++failures;
      ADD_FAILURE() << "row " << row << " id " << id << ": expected " << expected[i] << ", got "
                    << got[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Inputs, RoundedHead, testing::Values(32, 416, 1024),
                         testing::PrintToStringParamName());

TEST(RoundedHeadRows, ThatAreNotFiniteHaveNoScale) {
  std::vector<BFloat16> rows = tests::random_bf16(4 * 64, 3);
  rows[70] = BFloat16{0x7fc0};   // row 1: NaN
  rows[140] = BFloat16{0xff80};  // row 2: -inf
  const auto device = tests::to_device(rows);
  const DeviceBuffer codes = tests::poisoned(rows.size());
  const DeviceBuffer scales = tests::poisoned(4 * 4);
  ops::cuda::round_rows({}, device.data(), 4, 64, codes.as<uint8_t>(), scales.as<float>());
  tests::synchronize();
  const auto got = tests::to_host<float>(scales, 4);
  for (size_t row = 0; row < 4; ++row)
    EXPECT_EQ(std::isfinite(got[row]), row == 0 || row == 3) << row;
}

}  // namespace
}  // namespace tandem
