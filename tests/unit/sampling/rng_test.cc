#include "sampling/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace tandem::sampling {
namespace {

// The three known answers of philox4x32 with 10 rounds published with Random123.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffffU;
  EXPECT_EQ(philox4x32_10({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, EveryPartOfTheKeyMatters) {
  std::set<uint32_t> seen;
  for (const uint64_t seed : {0ULL, 1ULL, 1ULL << 32, ~0ULL})
    for (const int64_t position : {0LL, 1LL, 8191LL, 1LL << 40})
      for (const Purpose purpose : {Purpose::kTokenHigh, Purpose::kTokenLow, Purpose::kAccept})
        for (const uint32_t index : {0U, 1U, 4U, 262143U})
          seen.insert(random_word(seed, position, purpose, index));
  EXPECT_EQ(seen.size(), 4U * 4U * 3U * 4U);
}

TEST(Random, UniformIsUniform) {
  constexpr int kDraws = 200000;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = uniform(7, i, Purpose::kAccept);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  // Five standard errors of the mean (1/sqrt(12 n)) and of the second moment (sqrt(4/45 / n)).
  EXPECT_NEAR(sum / kDraws, 0.5, 5 / std::sqrt(12.0 * kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kDraws));
}

TEST(Random, GumbelIsFiniteAtBothEnds) {
  constexpr uint32_t kOnes = 0xffffffffU;
  EXPECT_NEAR(gumbel_from_bits(0, 0), 65 * std::log(2.0), 1e-9);
  EXPECT_TRUE(std::isfinite(gumbel_from_bits(kOnes, kOnes)));
  EXPECT_LT(gumbel_from_bits(kOnes, kOnes), -3.5);
  EXPECT_NEAR(gumbel_from_bits(0x80000000U, 0), -std::log(std::log(2.0)), 1e-9);
}

TEST(Random, DerivedSeedsDiffer) {
  std::set<uint64_t> seeds;
  for (uint64_t request = 0; request < 1000; ++request) seeds.insert(derive_seed(42, request));
  EXPECT_EQ(seeds.size(), 1000U);
  EXPECT_NE(derive_seed(1, 5), derive_seed(2, 5));
}

}  // namespace
}  // namespace tandem::sampling
