// Block pool, stop rules, acceptance watch.
#include <gtest/gtest.h>

#include "engine/acceptance_watch.h"
#include "engine/block_pool.h"
#include "engine/stop.h"

namespace tandem::engine {
namespace {

TEST(BlockPool, HandsOutEachBlockOnce) {
  BlockPool pool(5);
  std::vector<int32_t> a, b;
  pool.allocate(2, a);
  pool.allocate(3, b);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.find_fault({&a, &b}), "");
  pool.release(a);
  EXPECT_TRUE(a.empty());
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.find_fault({&b}), "");
}

TEST(BlockPool, FaultsAreFound) {
  BlockPool pool(4);
  std::vector<int32_t> a, stolen = {3};
  pool.allocate(2, a);
  EXPECT_NE(pool.find_fault({}), "");             // a leak
  EXPECT_NE(pool.find_fault({&a, &a}), "");       // two holders
  EXPECT_NE(pool.find_fault({&a, &stolen}), "");  // held, but free
  stolen = {7};
  EXPECT_NE(pool.find_fault({&a, &stolen}), "");
}

TEST(BlockPoolDeathTest, DoubleReleaseIsABug) {
  BlockPool pool(4);
  std::vector<int32_t> a;
  pool.allocate(1, a);
  std::vector<int32_t> copy = a;
  pool.release(a);
  EXPECT_DEATH(pool.release(copy), "released twice");
  EXPECT_DEATH(pool.allocate(5, a), "check failed");
}

std::vector<sampling::TokenChoice> tokens(std::initializer_list<int32_t> ids) {
  std::vector<sampling::TokenChoice> out;
  for (const int32_t id : ids) out.emplace_back().token = id;
  return out;
}

TEST(Stop, CutsAtTheFirstStopToken) {
  const StopRules rules{.ids = {1, 106, 50}, .max_tokens = 100};
  const StopCut cut = find_stop(tokens({7, 106, 1, 8}), 0, rules);
  EXPECT_EQ(cut.num_kept, 2U);
  EXPECT_EQ(cut.reason, FinishReason::kStop);
  EXPECT_EQ(cut.stop_token, 106);
}

TEST(Stop, CutsAtMaxTokensInsideARound) {
  const StopRules rules{.ids = {1}, .max_tokens = 10};
  const StopCut cut = find_stop(tokens({7, 8, 9, 1}), 8, rules);
  EXPECT_EQ(cut.num_kept, 2U);
  EXPECT_EQ(cut.reason, FinishReason::kLength);
  EXPECT_FALSE(cut.stop_token.has_value());
}

TEST(Stop, AStopTokenAtTheLimitIsAStop) {
  const StopRules rules{.ids = {1}, .max_tokens = 2};
  EXPECT_EQ(find_stop(tokens({7, 1}), 0, rules).reason, FinishReason::kStop);
}

TEST(Stop, GoesOnOtherwise) {
  const StopRules rules{.ids = {1}, .max_tokens = 10};
  const StopCut cut = find_stop(tokens({7, 8}), 3, rules);
  EXPECT_EQ(cut.num_kept, 2U);
  EXPECT_FALSE(cut.reason.has_value());
  EXPECT_EQ(find_stop({}, 3, rules).num_kept, 0U);
}

TEST(Stop, MinTokens) {
  const StopRules rules{.ids = {1}, .max_tokens = 10, .min_tokens = 2};
  EXPECT_FALSE(find_stop(tokens({1, 1}), 0, rules).reason.has_value());
  EXPECT_EQ(find_stop(tokens({1, 1, 1}), 0, rules).num_kept, 3U);
}

TEST(Stop, RulesOfARequest) {
  sampling::SamplingParams params;
  params.stop_token_ids = {9};
  const std::vector<int32_t> eos = {1, 106};
  EXPECT_EQ(make_stop_rules(params, eos, 5).ids, (std::vector<int32_t>{9, 1, 106}));
  params.ignore_eos = true;
  EXPECT_EQ(make_stop_rules(params, eos, 5).ids, (std::vector<int32_t>{9}));
}

TEST(AcceptanceWatch, WarnsOncePerLowStretch) {
  AcceptanceWatch watch;
  const auto window = [&](int num_good) {
    int warnings = 0;
    for (int i = 0; i < AcceptanceWatch::kWindowDrafts; ++i) {
      EXPECT_FALSE(watch.add_round(0, 0).has_value());  // rounds without a draft do not count
      warnings += watch.add_round(4, i < num_good ? 1 : 0).has_value() ? 1 : 0;
    }
    return warnings;
  };
  EXPECT_EQ(window(10), 0);  // exactly 5 %
  EXPECT_EQ(window(9), 1);
  EXPECT_EQ(window(0), 0);  // said already
  EXPECT_EQ(window(150), 0);
  EXPECT_EQ(window(0), 1);
}

TEST(AcceptanceWatch, NamesTheNumbersAndTheCauses) {
  AcceptanceWatch watch;
  std::optional<std::string> warning;
  for (int i = 0; i < AcceptanceWatch::kWindowDrafts; ++i) warning = watch.add_round(4, i < 3);
  ASSERT_TRUE(warning.has_value());
  EXPECT_NE(warning->find("in 3 of the last 200 drafts"), std::string::npos);
  EXPECT_NE(warning->find("another target"), std::string::npos);
}

}  // namespace
}  // namespace tandem::engine
