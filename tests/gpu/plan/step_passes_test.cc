// How many passes a step may have, and what runs a second time.
#include <gtest/gtest.h>

#include <random>

#include "gpu/step_plan.h"

namespace tandem::gpu {
namespace {

using speculation::SpecBatch;
using speculation::SpecSequence;

// Chunks that mostly nothing but the ring's slack cuts, and rounds.
SpecBatch long_batch(uint32_t seed, const std::vector<int32_t>& tokens) {
  std::mt19937 random(seed);
  SpecBatch batch;
  batch.sequences.resize(1 + random() % 9);
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    SpecSequence& sequence = batch.sequences[i];
    const bool is_round = i > 0 && random() % 3 == 0;
    sequence.tokens = std::span(tokens).first(is_round ? 1 : 1 + random() % tokens.size());
    sequence.samples = true;
    sequence.num_draft_tokens = is_round ? 8 : 0;
    if (!is_round) sequence.num_prompt_tokens = static_cast<int64_t>(random() % tokens.size());
  }
  return batch;
}

TEST(StepPassesTest, NoStepHasMorePassesThanThereIsRoomFor) {
  const std::vector<int32_t> tokens(9000, 5);
  const auto num_passes = [](const SpecBatch& batch, int64_t slack, int64_t wide_rows) {
    return static_cast<int64_t>(plan_step(batch, slack, wide_rows).passes.size());
  };
  for (uint32_t seed = 0; seed < 300; ++seed) {
    const SpecBatch batch = long_batch(seed, tokens);
    int64_t num_rows = 0;
    for (const SpecSequence& sequence : batch.sequences)
      num_rows += static_cast<int64_t>(sequence.tokens.size()) + sequence.num_draft_tokens;
    for (const int64_t slack : {65, 72, 96, 200})
      for (const int64_t wide_rows : {0, 2048})
        EXPECT_LE(num_passes(batch, slack, wide_rows), most_passes(num_rows, slack, wide_rows))
            << seed << ' ' << slack;
  }
  SpecBatch alone;
  alone.sequences.resize(1);
  alone.sequences[0].tokens = std::span(tokens).first(8192);
  EXPECT_EQ(num_passes(alone, 65, 0), most_passes(8192, 65));
}

// Rows 100 .. 299 have written over the keys of positions that row 100 saw.
TEST(StepPassesTest, WhatTheDeviceLeavesToTheHostRunsWithoutItsChunk) {
  std::vector<int32_t> tokens(200);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  SpecSequence chunk;
  chunk.state_slot = 3;
  chunk.tokens = tokens;
  chunk.start_position = 100;
  chunk.num_prompt_tokens = 300;
  chunk.samples = true;
  for (const int64_t wide_rows : {0, 256}) {
    SpecBatch batch;
    batch.sequences = {newest_of(chunk)};
    const StepLayout layout = plan_step(batch, 65, wide_rows);
    ASSERT_EQ(layout.entries.size(), 1U);
    ASSERT_EQ(layout.passes.size(), 1U);
    ASSERT_EQ(layout.passes[0].rows.size(), 1U);
    EXPECT_EQ(layout.passes[0].rows[0].position, 299);
    EXPECT_EQ(layout.passes[0].rows[0].token, 199);
    EXPECT_EQ(layout.wide.size(), wide_rows > 0 ? 1U : 0U);
    if (wide_rows > 0) {
      EXPECT_EQ(layout.wide[0].rows.size(), 1U);
    }
  }
  SpecSequence round;
  round.tokens = std::span<const int32_t>(tokens).first(1);
  round.start_position = 50;
  round.num_draft_tokens = 4;
  EXPECT_EQ(newest_of(round).start_position, 50);
  EXPECT_EQ(newest_of(round).num_draft_tokens, 4);
}

}  // namespace
}  // namespace tandem::gpu
