#include "quantize/eval_text.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/e4m3.h"
#include "quantize/eval_modules.h"
#include "quantize/eval_observer.h"

namespace tandem::quantize {
namespace {

TEST(EvalText, RowAgainstClosedForms) {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = (1/2) ln 2 - (1/4) ln 2.
  const float shift = 7.0F;  // softmax does not see it
  const std::vector<float> p = {std::log(0.5F) + shift, std::log(0.25F) + shift,
                                std::log(0.25F) + shift};
  const std::vector<float> q = {std::log(0.25F), std::log(0.5F), std::log(0.25F)};
  const RowScore row = score_row(q, p, 0);
  EXPECT_NEAR(row.kl, 0.25 * std::log(2.0), 1e-6);
  EXPECT_NEAR(row.nll, std::log(4.0), 1e-6);
  EXPECT_NEAR(row.reference_nll, std::log(2.0), 1e-6);
  EXPECT_FALSE(row.same_choice);
  EXPECT_NEAR(score_row(p, p, 2).kl, 0, 1e-12);
  EXPECT_TRUE(score_row(p, p, 2).same_choice);
}

TEST(EvalText, LargeLogitsDoNotOverflow) {
  const std::vector<float> logits = {1000.0F, 0.0F};
  EXPECT_NEAR(score_row(logits, logits, 0).nll, 0, 1e-9);
  EXPECT_NEAR(score_row(logits, {}, 1).nll, 1000, 1e-9);
}

// A KL of NaN would otherwise count as 0, the best there is.
TEST(EvalText, WhatIsNotFiniteIsSaid) {
  const std::vector<float> good = {1.0F, 2.0F, 3.0F};
  for (const float bad : {NAN, INFINITY}) {
    const std::vector<float> broken = {1.0F, bad, 3.0F};
    EXPECT_TRUE(score_row(good, good, 0).finite);
    EXPECT_TRUE(score_row(good, good, 0).reference_finite);
    EXPECT_FALSE(score_row(broken, good, 0).finite);
    EXPECT_TRUE(score_row(broken, good, 0).reference_finite);
    EXPECT_FALSE(score_row(good, broken, 0).reference_finite);
    EXPECT_FALSE(score_row(broken, {}, 0).finite);
  }
}

TEST(EvalText, Quantiles) {
  EXPECT_EQ(quantile({}, 0.99), 0);
  EXPECT_EQ(quantile({3, 1, 2}, 1.0), 3);
  EXPECT_EQ(quantile({3, 1, 2}, 0.5), 2);
  std::vector<double> hundred;
  for (int i = 1; i <= 100; ++i) hundred.push_back(i);
  EXPECT_EQ(quantile(hundred, 0.99), 99);
}

TEST(EvalText, FinalAnswer) {
  EXPECT_EQ(final_answer("42<turn|>"), "42");
  EXPECT_EQ(final_answer("<|channel>thought\nones.\n<channel|>42<turn|>"), "42");
  EXPECT_EQ(final_answer("<|channel>thought\nnever ends"), "");
  EXPECT_EQ(final_answer("42"), "42");
  EXPECT_EQ(final_answer("a <channel|> b"), "a <channel|> b");
}

TEST(EvalObserver, CountsMagnitudesByPowersOfTwo) {
  MagnitudeCounts counts;
  for (const float value : {0.0F, 1.0F, -1.5F, 2.0F, 0.25F, NAN, INFINITY})
    count_magnitude(value, counts);
  EXPECT_EQ(counts.num_zeros, 1);
  EXPECT_EQ(counts.counts[127], 2);  // [1, 2)
  EXPECT_EQ(counts.counts[128], 1);  // [2, 4)
  EXPECT_EQ(counts.counts[125], 1);  // [1/4, 1/2)
  EXPECT_EQ(counts.amax, 2.0F);
}

TEST(EvalObserver, SharedInputsAreSeenOnceAndAFewRowsAreKept) {
  const core::Buffer x(core::DType::kF32, {100, 4});
  for (int64_t i = 0; i < 400; ++i) x.view().ptr<float>()[i] = static_cast<float>(i / 4);
  EvalObserver observer;
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    observer.on_linear_input(std::string("layers.0.self_attn.") + name, x.view());
  const auto* input = observer.find("layers.0.self_attn.v_proj");
  ASSERT_NE(input, nullptr);
  EXPECT_EQ(input->num_rows, 100);
  EXPECT_EQ(input->num_kept, EvalObserver::kRows);
  EXPECT_EQ(input->magnitudes.amax, 99.0F);
  bool any_late = false;
  for (int64_t r = 0; r < input->num_kept; ++r)
    any_late = any_late || input->kept().row<float>(r)[0] >= 50;
  EXPECT_TRUE(any_late);  // not just the first rows
  EXPECT_EQ(observer.find("layers.1.self_attn.q_proj"), nullptr);
}

// A BF16 projection and its FP8 image with one scale.
struct Weights {
  core::Buffer bf16{core::DType::kBF16, {8, 16}};
  core::Buffer fp8{core::DType::kF8E4M3, {8, 16}};
  io::LinearWeights reference, candidate;

  explicit Weights(float scale) {
    for (int i = 0; i < 128; ++i) {
      const float value = std::sin(static_cast<float>(i) * 0.7F) + 0.1F;
      bf16.view().ptr<core::BFloat16>()[i] = core::to_bf16(value);
      static_cast<uint8_t*>(fp8.data())[i] =
          core::float_to_e4m3(core::to_float(bf16.view().ptr<core::BFloat16>()[i]) / scale);
    }
    reference.weight = bf16.view();
    candidate.format = io::WeightFormat::kFp8PerTensor;
    candidate.weight = fp8.view();
    candidate.weight_scale = scale;
  }
};

TEST(EvalModules, FactorCorrelationAndError) {
  Weights weights(0.01F);
  ModuleScore score;
  compare_weights(weights.candidate, weights.reference, false, score);
  EXPECT_NEAR(score.factor, 1, 0.01);
  EXPECT_GT(score.correlation, 0.999);
  EXPECT_GT(score.weight_error, 0.005);
  EXPECT_LT(score.weight_error, 0.05);
  weights.candidate.weight_scale *= 2;
  compare_weights(weights.candidate, weights.reference, false, score);
  EXPECT_NEAR(score.factor, 2, 0.02);
  EXPECT_GT(score.correlation, 0.999);
  compare_weights(weights.reference, weights.reference, false, score);
  EXPECT_EQ(score.weight_error, 0);
  EXPECT_NEAR(score.factor, 1, 1e-12);
}

TEST(EvalModules, ExchangedHalvesAreRecognised) {
  Weights weights(0.01F);
  const core::Buffer swapped(core::DType::kBF16, {8, 16});
  for (int row = 0; row < 8; ++row)
    for (int col = 0; col < 16; ++col)
      swapped.view().row<core::BFloat16>(row)[col] =
          weights.bf16.view().row<core::BFloat16>(row)[(col + 8) % 16];
  io::LinearWeights exchanged;
  exchanged.weight = swapped.view();
  ModuleScore score;
  compare_weights(exchanged, weights.reference, true, score);
  EXPECT_NEAR(score.swapped_correlation, 1, 1e-9);
  EXPECT_LT(score.correlation, 0.95);
}

}  // namespace
}  // namespace tandem::quantize
