// The FP8 head of the drafter: near the stored one, smaller, and only guesses depend on it.
#include "model/draft_head.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/e4m3.h"

namespace tandem::model {
namespace {

constexpr int64_t kVocab = 70;
constexpr int64_t kHidden = 33;

// Rows of very different size; row 3 is all zeros.
core::Buffer stored_head() {
  core::Buffer head(core::DType::kBF16, {kVocab, kHidden});
  std::mt19937 generator(5);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  for (int64_t row = 0; row < kVocab; ++row)
    for (int64_t i = 0; i < kHidden; ++i) {
      const float value = std::ldexp(normal(generator), static_cast<int>(row % 20) - 10);
      head.view().row<core::BFloat16>(row)[i] = core::to_bf16(row == 3 ? 0.0F : value);
    }
  return head;
}

TEST(DraftHead, AsStoredItIsTheStoredHead) {
  const core::Buffer stored = stored_head();
  const DraftHead head(stored.view(), DraftHeadFormat::kCheckpoint);
  EXPECT_EQ(head.weight().weight.data, stored.data());
  EXPECT_EQ(head.weight().format, ops::LinearFormat::kBF16);
  EXPECT_EQ(head.size_bytes(), kVocab * kHidden * 2);
  EXPECT_EQ(draft_head_bytes(stored.view(), DraftHeadFormat::kCheckpoint), head.size_bytes());
}

// E4M3 keeps four bits, so a rounded weight is off by at most 1/16 of itself, or by half a step of
// its row's subnormal grid.
TEST(DraftHead, RoundsEachTokenWithItsOwnScale) {
  const core::Buffer stored = stored_head();
  const DraftHead head(stored.view(), DraftHeadFormat::kFp8);
  EXPECT_EQ(head.weight().format, ops::LinearFormat::kFp8Channel);
  EXPECT_EQ(head.weight().activation, ops::ActivationQuantization::kNone);
  EXPECT_EQ(head.size_bytes(), kVocab * (kHidden + 4));
  EXPECT_EQ(draft_head_bytes(stored.view(), DraftHeadFormat::kFp8), head.size_bytes());
  const auto* codes = static_cast<const uint8_t*>(head.weight().weight.data);
  const auto* scales = static_cast<const float*>(head.weight().weight_scales.data);
  for (int64_t row = 0; row < kVocab; ++row) {
    float largest = 0;
    for (int64_t i = 0; i < kHidden; ++i) {
      const float exact = core::to_float(stored.view().row<core::BFloat16>(row)[i]);
      const float rounded = core::e4m3_to_float(codes[row * kHidden + i]) * scales[row];
      EXPECT_LE(std::abs(rounded - exact), std::abs(exact) / 16 + scales[row] / 1024 * 1.001F)
          << "row " << row << ", column " << i;
      largest = std::max(largest, std::abs(exact));
    }
    EXPECT_EQ(scales[row], row == 3 ? 1.0F : largest / core::kE4M3Max) << "row " << row;
  }
}

}  // namespace
}  // namespace tandem::model
