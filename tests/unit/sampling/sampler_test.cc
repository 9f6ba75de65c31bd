#include "sampling/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "base/clock.h"
#include "core/tensor_view.h"
#include "tests/unit/sampling/distribution.h"

namespace tandem::sampling {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Sampler make(const SamplingParams& params, int64_t vocab_size, std::vector<int32_t> prompt = {},
             std::vector<int32_t> suppress = {}, std::vector<int32_t> eos = {},
             uint64_t seed = 11) {
  return Sampler(params, vocab_size, prompt, std::move(suppress), std::move(eos), seed);
}

SamplingParams greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

TEST(Greedy, LowestIdWinsTies) {
  const std::vector<float> logits = {1, 7, 3, 7, 7};
  EXPECT_EQ(make(greedy(), 5).choose(logits, 0).token, 1);
}

TEST(Greedy, TinyTemperaturesAreGreedy) {
  SamplingParams params;
  params.temperature = 1e-6;
  const std::vector<float> logits = {1, 1.00001F, 1};
  for (int64_t position = 0; position < 100; ++position)
    EXPECT_EQ(make(params, 3).choose(logits, position).token, 1);
}

TEST(Greedy, SuppressedTokensNeverLeave) {
  const std::vector<float> logits = {1, 9, 8, 7};
  const Sampler sampler = make(greedy(), 4, {}, {1, 2});
  EXPECT_EQ(sampler.choose(logits, 0).token, 3);
  EXPECT_TRUE(sampler.is_plain());
  EXPECT_EQ(sampler.suppress_tokens(), (std::vector<int32_t>{1, 2}));
}

TEST(Greedy, PlainGreedyIsTheArgmaxOperation) {
  std::mt19937_64 random(4);
  std::vector<float> logits = test::random_logits(random, 8193, 2.0F);
  const std::vector<int32_t> suppress = {17, 4000};
  const Sampler sampler = make(greedy(), 8193, {}, suppress);
  for (int trial = 0; trial < 50; ++trial) {
    logits[random() % logits.size()] = 20.0F;
    logits[17] = 30.0F;
    int32_t want = -1;
    core::TensorView row(logits.data(), core::DType::kF32, {1, 8193});
    ops::argmax({.backend = ops::Backend::kReference}, row, suppress, {&want, 1});
    EXPECT_EQ(sampler.choose(logits, trial).token, want);
  }
}

// Anything beyond suppression and a draw must be seen by is_plain(), or a device would skip it.
TEST(Sampler, WhatIsNotPlainSaysSo) {
  const auto plain = [](const std::function<void(SamplingParams&)>& change,
                        std::vector<int32_t> eos = {}) {
    SamplingParams params = greedy();
    change(params);
    return make(params, 10, {1, 2}, {}, std::move(eos)).is_plain();
  };
  EXPECT_TRUE(plain([](SamplingParams&) {}));
  EXPECT_TRUE(plain([](SamplingParams& p) { p.top_k = 5; }));
  EXPECT_TRUE(plain([](SamplingParams& p) { p.temperature = 1; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.logit_bias = {{1, 1.0F}}; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.banned_token_ids = {1}; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.allowed_token_ids = {1}; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.banned_sequences = {{1, 2}}; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.presence_penalty = 1; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.frequency_penalty = 1; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.repetition_penalty = 2; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.num_logprobs = 0; }));
  EXPECT_FALSE(plain([](SamplingParams& p) { p.min_tokens = 1; }, {3}));
}

TEST(Adjustments, BiasAddsToTheLogit) {
  SamplingParams params = greedy();
  params.logit_bias = {{2, 5.5F}, {0, -100.0F}};
  const std::vector<float> logits = {9, 8, 3, 1};
  EXPECT_EQ(make(params, 4).choose(logits, 0).token, 2);
}

TEST(Adjustments, BannedAndAllowed) {
  SamplingParams params = greedy();
  params.banned_token_ids = {0};
  const std::vector<float> logits = {9, 8, 3, 1};
  EXPECT_EQ(make(params, 4).choose(logits, 0).token, 1);
  params.allowed_token_ids = {0, 2, 2, 3};
  EXPECT_EQ(make(params, 4).choose(logits, 0).token, 2);
}

TEST(Adjustments, BannedSequencesNeverEnd) {
  SamplingParams params = greedy();
  params.banned_sequences = {{3}, {0, 1}, {2, 0, 0}};
  // 2 is the prompt's: only output counts.
  Sampler sampler = make(params, 4, {2});
  const auto next = [&sampler](std::vector<float> logits) {
    const int32_t token = sampler.choose(logits, 0).token;
    sampler.commit(token);
    return token;
  };
  EXPECT_EQ(next({5, 4, 3, 9}), 0);  // never 3
  EXPECT_EQ(next({5, 9, 3, 9}), 0);  // not 1 behind 0
  EXPECT_EQ(next({5, 9, 7, 9}), 2);
  EXPECT_EQ(next({8, 9, 7, 9}), 1);  // 1 is free behind 2
  EXPECT_EQ(next({5, 1, 7, 9}), 2);
  EXPECT_EQ(next({9, 1, 7, 9}), 0);
  EXPECT_EQ(next({9, 8, 7, 9}), 2);  // 2 0 0, and 0 1: neither
  EXPECT_EQ(next({9, 8, 7, 9}), 0);
  const Sampler copy = sampler;
  EXPECT_EQ(copy.choose(std::vector<float>{9, 8, 7, 9}, 0).token, 2);
}

TEST(Adjustments, MaskOfAGrammar) {
  std::vector<float> logits(40, 0.0F);
  logits[3] = 9;
  logits[35] = 5;
  const std::vector<uint32_t> mask = {0x1U, 1U << 3};  // ids 0 and 35
  EXPECT_EQ(make(greedy(), 40).choose(logits, 0, mask).token, 35);
  SamplingParams params;
  const Sampler sampler = make(params, 40);
  for (int64_t position = 0; position < 200; ++position) {
    const int32_t token = sampler.choose(logits, position, mask).token;
    EXPECT_TRUE(token == 0 || token == 35) << token;
  }
}

TEST(Adjustments, FrequencyAndPresenceCountOutputOnly) {
  SamplingParams params = greedy();
  params.frequency_penalty = 1;
  params.presence_penalty = 0.5;
  Sampler sampler = make(params, 3, {0, 0, 0, 0});  // the prompt does not count
  const std::vector<float> logits = {4.0F, 2.0F, 1.0F};
  // Token 0 falls 4 -> 2.5 -> 1.5; the third choice is token 1.
  for (const int32_t want : {0, 0, 1}) {
    const int32_t token = sampler.choose(logits, 0).token;
    EXPECT_EQ(token, want);
    sampler.commit(token);
  }
}

TEST(Adjustments, RepetitionSeesPromptAndOutput) {
  SamplingParams params = greedy();
  params.repetition_penalty = 2;
  Sampler sampler = make(params, 4, {0});
  const std::vector<float> positive = {6, 4, 2.5F, 1};
  EXPECT_EQ(sampler.choose(positive, 0).token, 1);  // 6 / 2 = 3 < 4
  sampler.commit(1);                                // 3, 2, 2.5, 1
  EXPECT_EQ(sampler.choose(positive, 0).token, 0);
  const std::vector<float> negative = {-1, -3, -1.5F, -9};
  EXPECT_EQ(sampler.choose(negative, 0).token, 2);  // -1 * 2 = -2 < -1.5
}

TEST(Adjustments, BiasComesBeforeRepetition) {
  SamplingParams params = greedy();
  params.repetition_penalty = 2;
  params.logit_bias = {{0, 4.0F}};
  // (2 + 4) / 2 = 3 loses against 4; 2 / 2 + 4 = 5 would win.
  EXPECT_EQ(make(params, 2, {0}).choose(std::vector<float>{2, 4}, 0).token, 1);
}

TEST(Adjustments, BanIsStrongerThanBias) {
  SamplingParams params = greedy();
  params.logit_bias = {{0, 100.0F}};
  params.banned_token_ids = {0};
  EXPECT_EQ(make(params, 2).choose(std::vector<float>{1, 0}, 0).token, 1);
  EXPECT_EQ(make(params, 3, {}, {1}).choose(std::vector<float>{1, 9, 0}, 0).token, 2);
}

TEST(Adjustments, MinTokensHoldsBackEosAndStops) {
  SamplingParams params = greedy();
  params.min_tokens = 2;
  params.stop_token_ids = {1};
  Sampler sampler = make(params, 4, {}, {}, {0});
  const std::vector<float> logits = {9, 8, 7, 6};
  EXPECT_EQ(sampler.choose(logits, 0).token, 2);
  sampler.commit(2);
  EXPECT_EQ(sampler.choose(logits, 1).token, 2);
  sampler.commit(2);
  EXPECT_EQ(sampler.num_output_tokens(), 2);
  EXPECT_EQ(sampler.choose(logits, 2).token, 0);
  EXPECT_TRUE(sampler.is_plain());
}

TEST(NotFinite, NanAndInfinityFailTheRow) {
  SamplingParams sampled;
  for (const SamplingParams& params : {greedy(), sampled}) {
    EXPECT_EQ(make(params, 3).choose(std::vector<float>{1, kNan, 2}, 0).token, kNotFinite);
    EXPECT_EQ(make(params, 3).choose(std::vector<float>{1, kInf, 2}, 0).token, kNotFinite);
    EXPECT_EQ(make(params, 3, {}, {1}).choose(std::vector<float>{1, kNan, 2}, 0).token, kNotFinite);
  }
}

TEST(NotFinite, NothingLeftToChoose) {
  SamplingParams sampled;
  for (const SamplingParams& params : {greedy(), sampled}) {
    EXPECT_EQ(make(params, 2, {}, {0, 1}).choose(std::vector<float>{1, 2}, 0).token, kNotFinite);
    EXPECT_EQ(make(params, 2).choose(std::vector<float>{-kInf, -kInf}, 0).token, kNotFinite);
    EXPECT_EQ(make(params, 2).choose(std::vector<float>{1, 2}, 0, std::vector<uint32_t>{0}).token,
              kNotFinite);
  }
}

TEST(LargeValues, StayExact) {
  SamplingParams params;
  params.temperature = 1e-4;
  const std::vector<float> logits = {-3e38F, 3e38F, 2.9e38F, -kInf};
  EXPECT_EQ(make(params, 4).choose(logits, 0).token, 1);
  params.temperature = 1e6;  // nearly uniform over what is finite
  std::vector<int64_t> counts(4, 0);
  const Sampler hot = make(params, 4);
  for (int64_t position = 0; position < 3000; ++position)
    ++counts[static_cast<size_t>(hot.choose(std::vector<float>{5, 1, -5, -kInf}, position).token)];
  EXPECT_EQ(counts[3], 0);
  for (size_t id = 0; id < 3; ++id) EXPECT_NEAR(static_cast<double>(counts[id]), 1000.0, 150.0);
}

TEST(Logprobs, AreThoseOfTheModel) {
  SamplingParams params = greedy();
  params.num_logprobs = 2;
  params.logit_bias = {{2, 50.0F}};
  const std::vector<float> logits = {std::log(0.5F), std::log(0.3F), std::log(0.2F)};
  const TokenChoice choice = make(params, 3).choose(logits, 0);
  EXPECT_EQ(choice.token, 2);
  EXPECT_NEAR(choice.logprob, std::log(0.2), 1e-6);
  ASSERT_EQ(choice.top.size(), 2U);
  EXPECT_EQ(choice.top[0].token, 0);
  EXPECT_NEAR(choice.top[0].logprob, std::log(0.5), 1e-6);
  EXPECT_EQ(choice.top[1].token, 1);
  params.num_logprobs = 0;
  EXPECT_TRUE(make(params, 3).choose(logits, 0).top.empty());
  EXPECT_NEAR(make(params, 3).choose(logits, 0).logprob, std::log(0.2), 1e-6);
}

TEST(Seeds, SameSeedSameTokenOtherSeedOther) {
  std::mt19937_64 random(5);
  const std::vector<float> logits = test::random_logits(random, 1000, 1.0F);
  const SamplingParams params;
  const Sampler a = make(params, 1000, {}, {}, {}, 1);
  const Sampler b = make(params, 1000, {}, {}, {}, 2);
  int differ = 0;
  for (int64_t position = 0; position < 100; ++position) {
    const int32_t token = a.choose(logits, position).token;
    EXPECT_EQ(a.choose(logits, position).token, token);
    differ += b.choose(logits, position).token != token ? 1 : 0;
  }
  EXPECT_GT(differ, 90);
}

TEST(Copies, GoTheirOwnWay) {
  SamplingParams params = greedy();
  params.presence_penalty = 2;
  Sampler original = make(params, 2);
  Sampler copy = original;
  copy.commit(0);
  const std::vector<float> logits = {2, 1};
  EXPECT_EQ(original.choose(logits, 0).token, 0);
  EXPECT_EQ(copy.choose(logits, 0).token, 1);
}

TEST(Logprobs, OfNamedTokens) {
  SamplingParams params = greedy();
  params.num_logprobs = 2;
  params.logprob_token_ids = {3, 0};
  const std::vector<float> logits = {1, 2, 0, -1};
  const TokenChoice choice = make(params, 4).choose(logits, 0);
  const double sum = std::exp(1.0) + std::exp(2.0) + 1 + std::exp(-1.0);
  EXPECT_EQ(choice.token, 1);
  EXPECT_NEAR(choice.logprob, 2 - std::log(sum), 1e-6);
  ASSERT_EQ(choice.top.size(), 2U);
  EXPECT_EQ(choice.top[0].token, 3);
  EXPECT_NEAR(choice.top[0].logprob, -1 - std::log(sum), 1e-6);
  EXPECT_EQ(choice.top[1].token, 0);
  EXPECT_NEAR(choice.top[1].logprob, 1 - std::log(sum), 1e-6);
}

// A client may name all tokens in every rule: a step must stay short for the others.
TEST(Rules, LongListsOfTokensAreQuick) {
  constexpr int32_t kVocab = 60'000;
  SamplingParams params = greedy();
  params.min_tokens = 5;
  for (int32_t id = 0; id < kVocab; ++id) {
    params.stop_token_ids.push_back(kVocab - 1 - id);
    params.allowed_token_ids.push_back(id);
    params.logit_bias.emplace_back(id, 1.0F);
  }
  params.stop_token_ids.pop_back();
  const Sampler sampler = make(params, kVocab);
  const base::Stopwatch watch;
  EXPECT_EQ(sampler.choose(std::vector<float>(kVocab), 0).token, 0);  // all others are stops
  EXPECT_LT(watch.seconds(), 1);
}

}  // namespace
}  // namespace tandem::sampling
