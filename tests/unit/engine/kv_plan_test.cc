#include "engine/kv_plan.h"

#include <gtest/gtest.h>

namespace tandem::engine {
namespace {

// Rings of 1,000 bytes a sequence, pages of 10 positions and 100 bytes.
KvPlanInput input(int64_t seqs, int64_t len, int64_t budget) {
  return {.ring_block_bytes = 250,
          .page_block_bytes = 100,
          .block_size = 10,
          .ring_len = 40,
          .max_num_seqs = seqs,
          .max_model_len = len,
          .longest_model_len = 500,
          .budget_bytes = budget};
}

TEST(KvPlan, PlentyGivesEveryoneEverything) {
  const KvPlan plan = plan_kv(input(3, 95, 1000000)).value();
  EXPECT_EQ(plan.max_num_seqs, 3);
  EXPECT_EQ(plan.num_ring_blocks, 12);
  EXPECT_EQ(plan.num_page_blocks, 30);
  EXPECT_EQ(plan.size_bytes, 3000 + 3000);
}

TEST(KvPlan, OneLongRequestAlwaysFits) {
  for (int64_t budget = 2000; budget < 9000; budget += 137) {
    const KvPlan plan = plan_kv(input(8, 95, budget)).value();
    EXPECT_LE(plan.size_bytes, budget);
    EXPECT_GE(plan.num_page_blocks, 10);
    EXPECT_GE(plan.max_num_seqs, 1);
    EXPECT_EQ(plan.max_num_seqs, std::min<int64_t>(8, (budget - 1000) / 1000));
  }
}

TEST(KvPlan, FitsTheLengthToTheMemory) {
  EXPECT_EQ(plan_kv(input(1, 0, 3000)).value().max_model_len, 200);
  EXPECT_EQ(plan_kv(input(1, 0, 1000000)).value().max_model_len, 500);
}

TEST(KvPlan, RefusesWithBothNumbers) {
  const auto small = plan_kv(input(1, 95, 1999));
  ASSERT_FALSE(small.has_value());
  EXPECT_EQ(small.error().code, base::ErrorCode::kResourceExhausted);
  EXPECT_NE(small.error().message.find("one request of 95 tokens"), std::string::npos);
  EXPECT_FALSE(plan_kv(input(1, 0, 0)).has_value());
  const auto large = plan_kv(input(1, 501, 1000000));
  ASSERT_FALSE(large.has_value());
  EXPECT_NE(large.error().message.find("at most 500"), std::string::npos);
}

}  // namespace
}  // namespace tandem::engine
