#include "sampling/candidates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "tests/unit/sampling/distribution.h"

namespace tandem::sampling {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<Candidate> sorted_reference(std::span<const float> logits) {
  std::vector<Candidate> all;
  for (size_t id = 0; id < logits.size(); ++id)
    if (logits[id] > -kInf) all.push_back({logits[id], static_cast<int32_t>(id)});
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  return all;
}

// Logits on a coarse grid, so that ties are everywhere, with some -inf.
std::vector<float> tied_logits(std::mt19937_64& random, size_t vocab_size) {
  std::vector<float> logits = test::random_logits(random, vocab_size, 2.0F);
  for (float& logit : logits) {
    logit = std::round(logit * 4) / 4;
    if (random() % 10 == 0) logit = -kInf;
  }
  return logits;
}

TEST(RowMax, MatchesAPlainLoopAtEveryLength) {
  std::mt19937_64 random(1);
  for (size_t size = 1; size < 70; ++size) {
    const std::vector<float> logits = tied_logits(random, size);
    const auto all = sorted_reference(logits);
    const RowMax max = row_max(logits);
    EXPECT_TRUE(max.finite);
    EXPECT_EQ(max.id, all.empty() ? -1 : all[0].id) << size;
  }
}

TEST(RowMax, SeesNanAndInfinityAnywhere) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInf}) {
    for (size_t at = 0; at < 37; ++at) {
      std::vector<float> logits(37, 1.0F);
      logits[at] = bad;
      EXPECT_FALSE(row_max(logits).finite) << bad << " at " << at;
    }
  }
}

TEST(SelectTop, EqualsSortAndCut) {
  std::mt19937_64 random(2);
  std::vector<Candidate> got;
  for (const size_t vocab_size : {1UL, 31UL, 100UL, 513UL, 8193UL}) {
    for (const int64_t count : {1L, 2L, 64L, 200L, 5000L, 10000L}) {
      for (int repeat = 0; repeat < 4; ++repeat) {
        const std::vector<float> logits = tied_logits(random, vocab_size);
        auto want = sorted_reference(logits);
        want.resize(std::min(want.size(), static_cast<size_t>(count)));
        select_top(logits, count, got);
        ASSERT_EQ(got.size(), want.size());
        for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i].id, want[i].id) << i;
      }
    }
  }
}

TEST(SelectTop, WorstOrders) {
  std::vector<float> rising(10000);
  for (size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<float>(i);
  std::vector<Candidate> got;
  select_top(rising, 3, got);
  ASSERT_EQ(got.size(), 3U);
  EXPECT_EQ(got[0].id, 9999);
  EXPECT_EQ(got[2].id, 9997);
  select_top(std::vector<float>(10000, 1.0F), 3, got);
  EXPECT_EQ(got[2].id, 2);
}

TEST(Truncate, KeepsTheSameSetAsTheNaiveReference) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> unit(0, 1);
  std::vector<Candidate> got;
  int narrowed = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const size_t vocab_size = 1 + random() % 700;
    // A tie group across the cut is where implementations differ; rounding of the sums is not what
    // is tested, so the grid only enters every second trial and top_p never lies on it.
    std::vector<float> logits = trial % 2 == 0 ? tied_logits(random, vocab_size)
                                               : test::random_logits(random, vocab_size, 3.0F);
    logits[random() % vocab_size] = 1.0F;
    Truncation t;
    t.temperature = 0.2 + 2 * unit(random);
    t.top_k = random() % 2 == 0 ? 0 : static_cast<int64_t>(random() % 80);
    t.top_p = random() % 2 == 0 ? 1.0 : unit(random);
    t.min_p = random() % 2 == 0 ? 0.0 : unit(random) * 0.5;
    const std::vector<double> p = test::naive_distribution(logits, t);
    truncate(logits, row_max(logits).logit, t, got);
    std::set<int32_t> ids;
    for (const Candidate& c : got) ids.insert(c.id);
    ASSERT_EQ(ids.size(), got.size());
    for (size_t id = 0; id < vocab_size; ++id)
      ASSERT_EQ(ids.count(static_cast<int32_t>(id)) == 1, p[id] > 0)
          << "trial " << trial << " id " << id << " top_k " << t.top_k << " top_p " << t.top_p
          << " min_p " << t.min_p;
    narrowed += got.size() < vocab_size ? 1 : 0;
  }
  EXPECT_GT(narrowed, 1000);
}

TEST(Truncate, TopPSeesOnlyTheTopKMass) {
  // Probabilities .4 .3 .2 .1: top-p 0.65 of everything keeps two, of the top two keeps two; of
  // the top 2 with 0.55 it keeps one (.4/.7 = .571), of everything it would keep two.
  const std::vector<float> logits = {std::log(0.4F), std::log(0.3F), std::log(0.2F),
                                     std::log(0.1F)};
  std::vector<Candidate> got;
  truncate(logits, logits[0], {.top_p = 0.55}, got);
  EXPECT_EQ(got.size(), 2U);
  truncate(logits, logits[0], {.top_k = 2, .top_p = 0.55}, got);
  EXPECT_EQ(got.size(), 1U);
  // Temperature comes first: at 0.5 the first has .16/.30 = .533 of the mass, at 0.25 .0256/.0354.
  truncate(logits, logits[0], {.temperature = 0.25, .top_p = 0.55}, got);
  EXPECT_EQ(got.size(), 1U);
}

TEST(Truncate, TinyTopPKeepsTheLikeliest) {
  const std::vector<float> logits = {0.0F, 5.0F, 5.0F, 1.0F};
  std::vector<Candidate> got;
  truncate(logits, 5.0F, {.top_p = 1e-300}, got);
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0].id, 1);
  truncate(logits, 5.0F, {.min_p = 1.0}, got);
  EXPECT_EQ(got.size(), 2U);
}

}  // namespace
}  // namespace tandem::sampling
