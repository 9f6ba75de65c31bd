#include "speculation/acceptance.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem::speculation {
namespace {

TEST(AcceptanceStats, CountsRoundsAndPositions) {
  AcceptanceStats stats;
  stats.add_round(4, 4);
  stats.add_round(4, 1);
  stats.add_round(2, 0);
  stats.add_round(0, 0);  // a round without drafts is no draft
  EXPECT_EQ(stats.num_drafts, 3);
  EXPECT_EQ(stats.num_draft_tokens, 10);
  EXPECT_EQ(stats.num_accepted_tokens, 5);
  EXPECT_DOUBLE_EQ(stats.acceptance_rate(), 0.5);
  EXPECT_DOUBLE_EQ(stats.mean_acceptance_length(), 1.0 + 5.0 / 3.0);
  EXPECT_DOUBLE_EQ(stats.rate_at(0), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(stats.rate_at(3), 1.0 / 3.0);
  EXPECT_EQ(stats.proposed_per_pos[1], 3);
  EXPECT_EQ(stats.proposed_per_pos[2], 2);
}

TEST(AcceptanceStats, IsEmptyBeforeTheFirstDraft) {
  const AcceptanceStats stats;
  EXPECT_EQ(stats.acceptance_rate(), 0.0);
  EXPECT_EQ(stats.mean_acceptance_length(), 1.0);
}

TEST(AcceptanceStats, AddsUp) {
  AcceptanceStats a;
  AcceptanceStats b;
  a.add_round(3, 2);
  b.add_round(4, 4);
  a.add(b);
  EXPECT_EQ(a.num_drafts, 2);
  EXPECT_EQ(a.accepted_per_pos[2], 1);
  EXPECT_EQ(a.proposed_per_pos[2], 2);
}

// The expected length of the rates is the length asked for.
double expected_length(const SyntheticAcceptance& acceptance) {
  double length = 1.0;
  double reached = 1.0;
  for (int i = 0; i < static_cast<int>(acceptance.rates.size()); ++i) {
    reached *= acceptance.conditional(i);
    length += reached;
  }
  return length;
}

TEST(SyntheticAcceptance, GivesTheLengthAskedFor) {
  for (const double length : {1.0, 1.5, 2.0, 2.76, 3.9, 5.0}) {
    const auto steps = SyntheticAcceptance::from_length(length, 4);
    const auto constant = SyntheticAcceptance::from_constant_rate(length, 4);
    ASSERT_TRUE(steps.has_value());
    ASSERT_TRUE(constant.has_value());
    EXPECT_NEAR(expected_length(*steps), length, 1e-12);
    EXPECT_NEAR(expected_length(*constant), length, 1e-9);
  }
}

TEST(SyntheticAcceptance, FollowsVllmsSteps) {
  const auto acceptance = SyntheticAcceptance::from_length(3.25, 4);
  ASSERT_TRUE(acceptance.has_value());
  EXPECT_EQ(acceptance->rates, (std::vector<double>{1.0, 1.0, 0.25, 0.0}));
  EXPECT_EQ(acceptance->conditional(3), 0.0);
  EXPECT_EQ(acceptance->conditional(7), 0.0);
}

TEST(SyntheticAcceptance, RefusesByName) {
  const auto too_long = SyntheticAcceptance::from_length(6.0, 4);
  ASSERT_FALSE(too_long.has_value());
  EXPECT_EQ(too_long.error().message, "synthetic_acceptance_length: expected 1 to 5, got 6");
  EXPECT_FALSE(SyntheticAcceptance::from_length(std::nan(""), 4).has_value());
  const auto rising = SyntheticAcceptance::from_rates({0.5, 0.6});
  ASSERT_FALSE(rising.has_value());
  EXPECT_EQ(rising.error().message,
            "synthetic_acceptance_rates: position 1: expected 0 to 0.5, got 0.6");
}

}  // namespace
}  // namespace tandem::speculation
