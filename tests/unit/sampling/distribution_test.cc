// Draws against the exact distribution, and the coupling of speculative with plain sampling.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "sampling/rng.h"
#include "sampling/sampler.h"
#include "tests/unit/sampling/distribution.h"

namespace tandem::sampling {
namespace {

struct Setting {
  size_t vocab_size;
  float spread;
  int64_t draws;
  Truncation truncation;
};

SamplingParams params_of(const Truncation& t) {
  SamplingParams params;
  params.temperature = t.temperature;
  params.top_k = t.top_k;
  params.top_p = t.top_p;
  params.min_p = t.min_p;
  return params;
}

std::vector<int64_t> histogram(const Sampler& sampler, std::span<const float> logits,
                               int64_t draws) {
  std::vector<int64_t> counts(logits.size(), 0);
  for (int64_t position = 0; position < draws; ++position)
    ++counts[static_cast<size_t>(sampler.choose(logits, position).token)];
  return counts;
}

// TANDEM_TEST_DRAWS=20 multiplies the draws; the default keeps the test at a few seconds.
int64_t draws_factor() {
  const char* text = std::getenv("TANDEM_TEST_DRAWS");
  return text == nullptr ? 1 : std::max<int64_t>(1, std::atoll(text));
}

TEST(Distribution, ChiSquareAgainstTheExactDistribution) {
  const std::vector<Setting> settings = {
      {100, 1.0F, 500000, {}},
      {100, 2.0F, 500000, {.temperature = 0.7, .top_k = 20, .top_p = 0.9, .min_p = 0.02}},
      {100, 0.0F, 300000, {}},  // all equal
      {8193, 2.0F, 30000, {.temperature = 1.3}},
      {8193, 3.0F, 50000, {.top_k = 64, .top_p = 0.95}},
      {10000, 3.0F, 10000, {.temperature = 0.8, .top_p = 0.9}},
      {10000, 2.0F, 40000, {.min_p = 0.01}},
  };
  std::mt19937_64 random(6);
  uint64_t seed = 100;
  for (const Setting& s : settings) {
    const std::vector<float> logits = test::random_logits(random, s.vocab_size, s.spread);
    const Sampler sampler(params_of(s.truncation), static_cast<int64_t>(s.vocab_size), {}, {}, {},
                          seed++);
    const std::vector<double> p = test::naive_distribution(logits, s.truncation);
    const std::vector<int64_t> counts = histogram(sampler, logits, s.draws * draws_factor());
    EXPECT_GT(test::chi_square_p_value(counts, p), 0.01) << "vocab " << s.vocab_size;
  }
}

// The draw in one line, over every candidate: what an implementation elsewhere must reproduce.
TEST(Distribution, TheDrawIsTheArgmaxOfLogitPlusNoise) {
  std::mt19937_64 random(12);
  for (const double temperature : {0.2, 1.0, 5.0}) {
    const std::vector<float> logits = test::random_logits(random, 3001, 2.0F);
    const Sampler sampler(params_of({.temperature = temperature}), 3001, {}, {}, {}, 31);
    for (int64_t position = 0; position < 300; ++position) {
      std::vector<double> scores;
      for (uint32_t id = 0; id < 3001; ++id)
        scores.push_back(static_cast<double>(logits[id]) / temperature +
                         gumbel_from_bits(random_word(31, position, Purpose::kTokenHigh, id),
                                          random_word(31, position, Purpose::kTokenLow, id)));
      const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
      ASSERT_EQ(sampler.choose(logits, position).token, best) << "position " << position;
    }
  }
}

// The same over seeds at one position: a request seed must be as good as a position.
TEST(Distribution, OverSeedsAtOnePosition) {
  std::mt19937_64 random(7);
  const std::vector<float> logits = test::random_logits(random, 100, 1.0F);
  std::vector<int64_t> counts(100, 0);
  for (uint64_t seed = 0; seed < 100000; ++seed) {
    const Sampler sampler(SamplingParams{}, 100, {}, {}, {}, seed);
    ++counts[static_cast<size_t>(sampler.choose(logits, 4095).token)];
  }
  EXPECT_GT(test::chi_square_p_value(counts, test::naive_distribution(logits, {})), 0.01);
}

// Neighbouring positions are independent: the joint histogram of pairs is the product.
TEST(Distribution, NeighbouringPositionsAreIndependent) {
  std::mt19937_64 random(8);
  const std::vector<float> logits = test::random_logits(random, 10, 1.0F);
  const std::vector<double> p = test::naive_distribution(logits, {});
  const Sampler sampler(SamplingParams{}, 10, {}, {}, {}, 77);
  std::vector<int64_t> counts(100, 0);
  std::vector<double> joint(100);
  for (size_t i = 0; i < 100; ++i) joint[i] = p[i / 10] * p[i % 10];
  for (int64_t position = 0; position < 400000; position += 2) {
    const auto first = static_cast<size_t>(sampler.choose(logits, position).token);
    const auto second = static_cast<size_t>(sampler.choose(logits, position + 1).token);
    ++counts[first * 10 + second];
  }
  EXPECT_GT(test::chi_square_p_value(counts, joint), 0.01);
}

// The test has teeth: a temperature 3 % off is told apart.
TEST(Distribution, ChiSquareNoticesAWrongTemperature) {
  std::mt19937_64 random(9);
  const std::vector<float> logits = test::random_logits(random, 100, 1.0F);
  const Sampler sampler(params_of({.temperature = 1.03}), 100, {}, {}, {}, 5);
  EXPECT_LT(test::chi_square_p_value(histogram(sampler, logits, 300000),
                                     test::naive_distribution(logits, {})),
            1e-4);
}

// A "model" whose logits are a function of the tokens so far.
std::vector<float> model_logits(std::span<const int32_t> tokens, size_t vocab_size) {
  uint64_t hash = 1469598103934665603ULL;
  for (const int32_t token : tokens.last(std::min<size_t>(tokens.size(), 3)))
    hash = (hash ^ static_cast<uint64_t>(token)) * 1099511628211ULL;
  std::mt19937_64 random(hash);
  return test::random_logits(random, vocab_size, 2.0F);
}

using Drafter = std::function<int32_t(std::span<const int32_t> tokens)>;
constexpr size_t kVocab = 300;
constexpr size_t kPrompt = 4;
constexpr size_t kLength = 150;

std::vector<int32_t> speculative_text(const SamplingParams& params, size_t num_drafts,
                                      const Drafter& drafter, int64_t& accepted) {
  std::vector<int32_t> tokens = {3, 1, 4, 1};
  Sampler sampler(params, kVocab, tokens, {7}, {0}, 99);
  while (tokens.size() < kPrompt + kLength) {
    std::vector<int32_t> guess = tokens;
    for (size_t j = 0; j < num_drafts; ++j) guess.push_back(drafter(guess));
    // Rows of the round: each sees the drafts before it, the sampler the tokens emitted so far.
    for (size_t row = 0; row <= num_drafts; ++row) {
      const std::span<const int32_t> seen(guess.data(), guess.size() - num_drafts + row);
      const auto position = static_cast<int64_t>(seen.size());
      const int32_t token = sampler.choose(model_logits(seen, kVocab), position).token;
      sampler.commit(token);
      tokens.push_back(token);
      if (row == num_drafts || guess[seen.size()] != token) break;
      ++accepted;
    }
  }
  tokens.resize(kPrompt + kLength);
  return tokens;
}

TEST(Coupling, SpeculativeTextIsThePlainText) {
  SamplingParams full;
  full.temperature = 0.9;
  full.top_k = 40;
  full.top_p = 0.95;
  full.min_p = 0.01;
  full.presence_penalty = 0.4;
  full.frequency_penalty = 0.2;
  full.repetition_penalty = 1.2;
  full.logit_bias = {{5, 2.0F}};
  full.min_tokens = 20;
  SamplingParams greedy = full;
  greedy.temperature = 0;
  std::mt19937_64 random(10);
  const Drafter noise = [&](std::span<const int32_t>) {
    return static_cast<int32_t>(random() % kVocab);
  };
  const Drafter likely = [](std::span<const int32_t> tokens) {
    return row_max(model_logits(tokens, kVocab)).id;
  };
  const Drafter out_of_vocabulary = [](std::span<const int32_t>) { return int32_t{0x7fffffff}; };
  for (const SamplingParams& params : {SamplingParams{}, full, greedy}) {
    int64_t accepted = 0;
    const std::vector<int32_t> plain = speculative_text(params, 0, noise, accepted);
    ASSERT_EQ(accepted, 0);
    // Knows the answer, and is wrong at every fifth token.
    const Drafter oracle = [&](std::span<const int32_t> tokens) {
      const size_t at = std::min(tokens.size(), plain.size() - 1);
      return at % 5 == 0 ? int32_t{7} : plain[at];
    };
    for (size_t num_drafts = 1; num_drafts <= 8; ++num_drafts) {
      for (const Drafter& drafter : {noise, likely, out_of_vocabulary, oracle})
        ASSERT_EQ(speculative_text(params, num_drafts, drafter, accepted), plain) << num_drafts;
    }
    EXPECT_GT(accepted, 500);
  }
}

}  // namespace
}  // namespace tandem::sampling
