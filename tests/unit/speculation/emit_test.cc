#include "speculation/emit.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace tandem::speculation {
namespace {

constexpr int32_t kDraft = 3;
constexpr int32_t kTargets = 4;

// Whether a draft behind `newest` at `position` is accepted, with a chance of one half.
bool accepted_by_chance(int32_t newest, int64_t position) {
  sampling::Sampler sampler({}, 16, {}, {}, {}, 0);
  const std::array<int32_t, 1> tokens = {newest};
  SpecSequence sequence;
  sequence.tokens = tokens;
  sequence.start_position = position;
  sequence.sampler = &sampler;
  const SyntheticRule rule{SyntheticAcceptance::from_rates({0.5}).value(), 7};
  const std::array<int32_t, 1> drafts = {kDraft};
  SpecSequenceResult result;
  emit_tokens(
      sequence, drafts,
      [](int64_t, int64_t, sampling::TokenMask) {
        sampling::TokenChoice choice;
        choice.token = kTargets;
        return choice;
      },
      rule, result);
  EXPECT_EQ(result.tokens.front().token, result.num_accepted == 1 ? kDraft : kTargets);
  return result.num_accepted == 1;
}

TEST(SyntheticEmission, NeighboursDoNotShareTheirLuck) {
  constexpr int kRounds = 2000;
  int first = 0;
  int second = 0;
  int both = 0;
  for (int64_t position = 0; position < kRounds; ++position) {
    const bool one = accepted_by_chance(5, position);
    const bool other = accepted_by_chance(6, position);
    first += one ? 1 : 0;
    second += other ? 1 : 0;
    both += one && other ? 1 : 0;
  }
  // Five standard errors: sqrt(p (1 - p) / n).
  EXPECT_NEAR(first, kRounds * 0.5, 5 * std::sqrt(kRounds * 0.25));
  EXPECT_NEAR(second, kRounds * 0.5, 5 * std::sqrt(kRounds * 0.25));
  EXPECT_NEAR(both, kRounds * 0.25, 5 * std::sqrt(kRounds * 0.1875));
}

TEST(SyntheticEmission, IsTheSameAgain) {
  for (int64_t position = 0; position < 64; ++position)
    EXPECT_EQ(accepted_by_chance(5, position), accepted_by_chance(5, position));
}

}  // namespace
}  // namespace tandem::speculation
