#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include "engine/block_pool.h"

namespace tandem::engine {
namespace {

SchedulerLimits limits(int64_t seqs, int64_t budget, int64_t pages) {
  return {.max_num_seqs = seqs,
          .max_num_batched_tokens = budget,
          .max_chunk_tokens = budget,
          .block_size = 4,
          .num_page_blocks = pages};
}

SequenceView decoding(uint64_t id, int64_t num_tokens, int k) {
  return {.id = id,
          .num_tokens = num_tokens,
          .num_computed = num_tokens - 1,
          .has_state = true,
          .num_pages = blocks_for(num_tokens, 4),
          .max_draft_tokens = k};
}

SequenceView waiting(uint64_t id, int64_t num_tokens) {
  return {.id = id, .num_tokens = num_tokens, .max_draft_tokens = 4};
}

TEST(Scheduler, DecodesComeFirstAndPrefillTakesTheRest) {
  const std::vector<SequenceView> running = {decoding(1, 9, 4), decoding(2, 9, 4)};
  const std::vector<SequenceView> queue = {waiting(3, 100)};
  const StepPlan plan = plan_step(limits(8, 32, 100), {running, queue, 90, 6});
  ASSERT_EQ(plan.sequences.size(), 3U);
  EXPECT_EQ(plan.sequences[0].num_rows(), 5);
  EXPECT_EQ(plan.sequences[1].num_rows(), 5);
  EXPECT_TRUE(plan.sequences[2].admitted);
  EXPECT_EQ(plan.sequences[2].num_tokens, 22);
  EXPECT_FALSE(plan.sequences[2].samples);
  EXPECT_EQ(plan.sequences[2].num_new_pages, 25);
  EXPECT_EQ(plan.num_rows, 32);
}

TEST(Scheduler, DraftsShareAShortBudgetEvenly) {
  std::vector<SequenceView> running;
  for (uint64_t id = 0; id < 8; ++id) running.push_back(decoding(id, 9, 8));
  StepPlan plan = plan_step(limits(8, 32, 100), {running, {}, 50, 0});
  for (const auto& planned : plan.sequences) EXPECT_EQ(planned.num_draft_tokens, 3);
  // With prefill to do, a quarter of the budget is not for drafts.
  const std::vector<SequenceView> queue = {waiting(9, 100)};
  plan = plan_step(limits(9, 32, 100), {running, queue, 50, 1});
  EXPECT_EQ(plan.sequences[0].num_draft_tokens, 2);
  EXPECT_EQ(plan.sequences.back().num_tokens, 32 - 24);
}

TEST(Scheduler, DraftsNeverPreempt) {
  // Both need their next page for drafts only; one page is free.
  const std::vector<SequenceView> running = {decoding(1, 8, 4), decoding(2, 7, 4)};
  const StepPlan plan = plan_step(limits(4, 32, 5), {running, {}, 1, 0});
  EXPECT_TRUE(plan.preempted.empty());
  EXPECT_EQ(plan.sequences[0].num_draft_tokens, 4);
  EXPECT_EQ(plan.sequences[0].num_new_pages, 1);
  EXPECT_EQ(plan.sequences[1].num_draft_tokens, 1);  // position 7 is still in its second page
}

TEST(Scheduler, PreemptsTheNewest) {
  std::vector<SequenceView> running = {decoding(1, 9, 0), decoding(2, 5, 4), decoding(3, 5, 4)};
  running[0].num_pages = 2;  // its 9th token needs a third
  const StepPlan plan = plan_step(limits(4, 32, 6), {running, {}, 0, 1});
  EXPECT_EQ(plan.preempted, (std::vector<uint64_t>{3}));
  ASSERT_EQ(plan.sequences.size(), 2U);
  EXPECT_EQ(plan.sequences[0].num_new_pages, 1);
}

TEST(Scheduler, ANewestWithoutPagesPreemptsItself) {
  std::vector<SequenceView> running = {decoding(1, 8, 0), decoding(2, 9, 0)};
  running[1].num_pages = 2;
  const StepPlan plan = plan_step(limits(4, 32, 4), {running, {}, 0, 1});
  EXPECT_EQ(plan.preempted, (std::vector<uint64_t>{2}));
  ASSERT_EQ(plan.sequences.size(), 1U);
}

TEST(Scheduler, NobodyOvertakesInTheQueue) {
  const std::vector<SequenceView> running = {decoding(1, 9, 0)};
  const std::vector<SequenceView> queue = {waiting(2, 40), waiting(3, 1)};
  const StepPlan plan = plan_step(limits(8, 64, 100), {running, queue, 9, 7});
  EXPECT_EQ(plan.sequences.size(), 1U);
}

SequenceView with_priority(SequenceView view, int64_t priority) {
  view.priority = priority;
  return view;
}

TEST(SchedulerPriority, TheFirstInTheQueueTakesTheSeatOfALowerOne) {
  const std::vector<SequenceView> running = {with_priority(decoding(1, 9, 4), 0),
                                             with_priority(decoding(2, 9, 4), 5)};
  const std::vector<SequenceView> equal = {with_priority(waiting(3, 6), 5)};
  EXPECT_TRUE(plan_step(limits(2, 32, 100), {running, equal, 90, 0}).preempted.empty());
  const std::vector<SequenceView> better = {with_priority(waiting(3, 6), 4)};
  const StepPlan plan = plan_step(limits(2, 32, 100), {running, better, 90, 0});
  EXPECT_EQ(plan.preempted, (std::vector<uint64_t>{2}));
  ASSERT_EQ(plan.sequences.size(), 2U);
  EXPECT_EQ(plan.sequences[0].id, 1U);
  EXPECT_EQ(plan.sequences[1].id, 3U);
  EXPECT_TRUE(plan.sequences[1].admitted);
}

TEST(SchedulerPriority, NobodyIsPreemptedInVain) {
  // Six pages: the lower one has three, which is not enough beside the higher one's three.
  const std::vector<SequenceView> running = {with_priority(decoding(1, 12, 0), 0),
                                             with_priority(decoding(2, 12, 0), 5)};
  const std::vector<SequenceView> queue = {with_priority(waiting(3, 16), 1)};
  EXPECT_TRUE(plan_step(limits(4, 32, 6), {running, queue, 0, 2}).preempted.empty());
}

TEST(SchedulerPriority, DraftsDoNotTakeWhatWasFreedForAnother) {
  // The first's drafts would need a page; all that is freed is put aside.
  const std::vector<SequenceView> running = {with_priority(decoding(1, 8, 4), 0),
                                             with_priority(decoding(2, 12, 0), 5)};
  const std::vector<SequenceView> queue = {with_priority(waiting(3, 4), 1)};
  const StepPlan plan = plan_step(limits(2, 32, 5), {running, queue, 0, 0});
  EXPECT_EQ(plan.preempted, (std::vector<uint64_t>{2}));
  ASSERT_EQ(plan.sequences.size(), 2U);
  EXPECT_TRUE(plan.sequences[1].admitted);
  EXPECT_EQ(plan.sequences[0].num_new_pages + plan.sequences[1].num_new_pages, 2);
}

TEST(SchedulerPriority, BetterPromptsGoBeforeThoseThatRun) {
  SequenceView prefilling = with_priority(waiting(1, 50), 3);
  prefilling.num_pages = 13;
  const std::vector<SequenceView> running = {prefilling};
  const std::vector<SequenceView> queue = {with_priority(waiting(2, 40), 1),
                                           with_priority(waiting(3, 10), 3)};
  const StepPlan plan = plan_step(limits(4, 48, 100), {running, queue, 80, 3});
  ASSERT_EQ(plan.sequences.size(), 2U);
  EXPECT_EQ(plan.sequences[0].id, 2U);
  EXPECT_EQ(plan.sequences[0].num_tokens, 40);
  EXPECT_EQ(plan.sequences[1].num_tokens, 8);
}

TEST(SchedulerPrefix, CachedPagesThatNobodyUsesAreTakenFromTheFreeOnes) {
  SequenceView found = waiting(1, 17);  // 5 pages, of which 4 are there
  found.num_computed = 16;
  found.num_pages = found.num_unused_pages = 4;
  const std::vector<SequenceView> queue = {found};
  const StepPlan plan = plan_step(limits(4, 32, 10), {{}, queue, 5, 4});
  ASSERT_EQ(plan.sequences.size(), 1U);
  EXPECT_EQ(plan.sequences[0].num_computed, 16);
  EXPECT_EQ(plan.sequences[0].num_tokens, 1);
  EXPECT_EQ(plan.sequences[0].num_new_pages, 1);
  EXPECT_TRUE(plan_step(limits(4, 32, 10), {{}, queue, 4, 4}).sequences.empty());
}

TEST(SchedulerPrefix, PreemptionFreesOnlyWhatNobodyElseHolds) {
  std::vector<SequenceView> running = {decoding(1, 9, 0), decoding(2, 9, 0), decoding(3, 9, 0)};
  running[0].num_pages = 2;  // its 9th token needs a third
  running[2].num_kept_pages = 3;
  const StepPlan plan = plan_step(limits(4, 32, 5), {running, {}, 0, 1});
  EXPECT_EQ(plan.preempted, (std::vector<uint64_t>{3, 2}));
}

TEST(SchedulerPrefix, ChunksEndWhereASnapshotIsWanted) {
  SequenceView view = waiting(1, 30);
  view.chunk_end = 12;
  const std::vector<SequenceView> queue = {view};
  EXPECT_EQ(plan_step(limits(4, 32, 10), {{}, queue, 10, 4}).sequences[0].num_tokens, 12);
  view.num_computed = 12;
  view.num_pages = 8;
  const std::vector<SequenceView> running = {view};
  EXPECT_EQ(plan_step(limits(4, 32, 10), {running, {}, 2, 3}).sequences[0].num_tokens, 18);
}

}  // namespace
}  // namespace tandem::engine
