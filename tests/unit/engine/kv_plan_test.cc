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
  EXPECT_EQ(plan.num_page_blocks, 33);  // with one of growth for each
  EXPECT_EQ(plan.size_bytes, 3000 + 3300);
  EXPECT_EQ(plan_kv(input(1, 95, 1000000)).value().num_page_blocks, 10);
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

TEST(KvPlan, SnapshotsHaveAQuarterOfWhatRingsLeave) {
  KvPlanInput asked = input(3, 95, 1000000);
  asked.snapshot_blocks = 3;
  const KvPlan plenty = plan_kv(asked).value();
  EXPECT_EQ(plenty.num_snapshot_blocks, 2 * 3 * 3);
  EXPECT_EQ(plenty.num_page_blocks, 33);
  EXPECT_EQ(plenty.size_bytes, 3000 + 3300 + 18 * 250);
  asked.budget_bytes = 1000 + 1000 + 2000 + 3000;  // a request's pages, three rings, 3,000 bytes
  const KvPlan plan = plan_kv(asked).value();
  EXPECT_EQ(plan.num_snapshot_blocks, 3);  // 750 bytes
  EXPECT_EQ(plan.snapshot_bytes, 750);
  EXPECT_EQ(plan.num_page_blocks, 32);
  for (int64_t budget = 2000; budget < 9000; budget += 137) {
    asked.budget_bytes = budget;
    const KvPlan any = plan_kv(asked).value();
    EXPECT_LE(any.size_bytes, budget);
    EXPECT_GE(any.num_page_blocks, 10);
  }
}

TEST(KvPlan, SaysWhatWouldHaveBeenEnough) {
  const KvPlan few = plan_kv(input(8, 95, 4000)).value();
  EXPECT_EQ(few.max_num_seqs, 3);
  EXPECT_EQ(few.asked_num_seqs, 8);
  EXPECT_EQ(plan_kv(input(8, 95, few.bytes_for_asked)).value().max_num_seqs, 8);
  EXPECT_EQ(plan_kv(input(8, 95, few.bytes_for_asked - 1)).value().max_num_seqs, 7);
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
  for (const int64_t length : {-1, 1}) {  // whatever the memory
    const auto tiny = plan_kv(input(1, length, 1000000));
    ASSERT_FALSE(tiny.has_value());
    EXPECT_EQ(tiny.error().message.rfind("max_model_len: expected at least 2", 0), 0U)
        << tiny.error().message;
  }
}

// Also where the length of a request is left to memory, of which there is then more.
TEST(KvPlan, WhatIsSaidToBeEnoughIsEnough) {
  for (const int64_t len : {int64_t{0}, int64_t{95}})
    for (int64_t budget = 1200; budget < 13000; budget += 137) {
      const auto plan = plan_kv(input(8, len, budget));
      if (!plan) continue;
      EXPECT_EQ(plan_kv(input(8, len, plan->bytes_for_asked))->max_num_seqs, 8)
          << len << ' ' << budget;
      EXPECT_EQ(few_sequences_warning(*plan, budget).empty(), plan->max_num_seqs == 8);
    }
}

TEST(KvPlan, WarnsOfFewSequencesByWhatTheyHave) {
  KvPlan plan = plan_kv(input(8, 95, 5000)).value();
  plan.budget_bytes = int64_t{5} << 30;
  plan.bytes_for_asked = (int64_t{8} << 30) + 1;
  EXPECT_EQ(few_sequences_warning(plan, int64_t{5} << 30),
            "--max-num-seqs 8: 4 run at once, the others wait: a KV cache of 5.00 GiB has no room "
            "for more beside one request of 95 tokens; --kv-cache-gib 8.01 would do");
  // A card that has less than the flag allows: the flag would change nothing.
  EXPECT_EQ(few_sequences_warning(plan, int64_t{1'000'000} << 30),
            "--max-num-seqs 8: 4 run at once, the others wait: a KV cache of 5.00 GiB has no room "
            "for more beside one request of 95 tokens; the card has left no more; a lower "
            "--max-model-len may do");
}

}  // namespace
}  // namespace tandem::engine
