#include "gpu/step_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace tandem::gpu {
namespace {

using speculation::SpecBatch;
using speculation::SpecSequence;

constexpr int64_t kSlack = 40;

// A batch whose token spans point into `tokens`, which is long enough for any of them.
SpecBatch random_batch(uint32_t seed, const std::vector<int32_t>& tokens) {
  std::mt19937 random(seed);
  SpecBatch batch;
  const size_t count = 1 + random() % 24;
  for (size_t i = 0; i < count; ++i) {
    SpecSequence sequence;
    sequence.state_slot = static_cast<int32_t>(i);
    const bool chunk = random() % 3 == 0;
    const size_t length = chunk ? 1 + random() % 150 : 1;
    sequence.tokens = std::span(tokens).subspan(random() % 100, length);
    sequence.start_position = random() % 1000;
    sequence.samples = !chunk || random() % 2 == 0;
    sequence.num_draft_tokens =
        length == 1 && sequence.samples ? static_cast<int>(random() % 9) : 0;
    if (chunk && random() % 4 == 0)
      sequence.scored_tokens = sequence.tokens.first(1 + random() % length);
    batch.sequences.push_back(sequence);
  }
  return batch;
}

// Every row of the batch is in the layout once, rows of a sequence in order.
void expect_all_rows(const SpecBatch& batch, const StepLayout& layout) {
  std::vector<std::vector<PlannedRow>> of_sequence(batch.sequences.size());
  for (const PlannedPass& pass : layout.passes)
    for (const PlannedRow& row : pass.rows)
      of_sequence.at(static_cast<size_t>(row.sequence)).push_back(row);
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const SpecSequence& sequence = batch.sequences[i];
    const size_t known = sequence.tokens.size();
    ASSERT_EQ(of_sequence[i].size(), known + static_cast<size_t>(sequence.num_draft_tokens));
    for (size_t r = 0; r < of_sequence[i].size(); ++r) {
      EXPECT_EQ(of_sequence[i][r].position, sequence.start_position + static_cast<int64_t>(r));
      if (r < known) {
        EXPECT_EQ(of_sequence[i][r].token, sequence.tokens[r]);
      }
    }
  }
}

void expect_tiles(const PlannedPass& pass) {
  int32_t next = 0;
  for (const PlannedTile& tile : pass.tiles) {
    EXPECT_EQ(tile.first_row, next);
    EXPECT_GE(tile.num_rows, 1);
    EXPECT_LE(tile.num_rows, kTileQueries);
    for (int32_t i = 0; i < tile.num_rows; ++i)
      EXPECT_EQ(pass.rows[static_cast<size_t>(next + i)].sequence,
                pass.rows[static_cast<size_t>(next)].sequence);
    next += tile.num_rows;
  }
  EXPECT_EQ(next, static_cast<int32_t>(pass.rows.size()));
}

void expect_pass(const PlannedPass& pass) {
  EXPECT_GE(pass.rows.size(), 1U);
  EXPECT_LE(pass.rows.size(), static_cast<size_t>(kPassRows));
  EXPECT_GE(pass.num_padded_rows(), static_cast<int>(pass.rows.size()));
  expect_tiles(pass);
  std::vector<int64_t> per_sequence(64, 0);
  for (const PlannedRow& row : pass.rows) {
    EXPECT_LT(row.position, pass.max_keys);
    EXPECT_LE(++per_sequence.at(static_cast<size_t>(row.sequence)), kSlack);
  }
}

void expect_entries(const SpecBatch& batch, const StepLayout& layout) {
  size_t samples = 0;
  for (const SpecSequence& sequence : batch.sequences) samples += sequence.samples ? 1 : 0;
  ASSERT_EQ(layout.entries.size(), samples);
  for (size_t i = 0; i < layout.entries.size(); ++i) {
    const PlannedEntry& entry = layout.entries[i];
    const SpecSequence& sequence = batch.sequences[entry.sequence];
    EXPECT_EQ(entry.num_drafts > 0, static_cast<int>(i) < layout.num_drafting);
    const PlannedPass& pass = layout.passes.at(static_cast<size_t>(entry.first_row / kPassRows));
    EXPECT_TRUE(pass.needs_logits);
    const auto place = static_cast<size_t>(entry.first_row % kPassRows);
    EXPECT_EQ(pass.rows.at(place).token, sequence.tokens.back());
    // A round stays in one pass.
    ASSERT_LE(place + static_cast<size_t>(entry.num_drafts), pass.rows.size() - 1);
    EXPECT_EQ(pass.rows[place + static_cast<size_t>(entry.num_drafts)].sequence,
              static_cast<int32_t>(entry.sequence));
  }
}

TEST(StepPlanTest, HoldsEveryRowOfRandomBatches) {
  std::vector<int32_t> tokens(400);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(seed);
    const SpecBatch batch = random_batch(seed, tokens);
    const StepLayout layout = plan_step(batch, kSlack);
    expect_all_rows(batch, layout);
    for (const PlannedPass& pass : layout.passes) expect_pass(pass);
    expect_entries(batch, layout);
    if (HasFailure()) return;
  }
}

// Rows of each pass of so many rounds.
std::vector<size_t> passes_of(int rounds, int num_drafts) {
  const std::vector<int32_t> tokens(1, 5);
  SpecBatch batch;
  SpecSequence sequence;
  sequence.tokens = tokens;
  sequence.samples = true;
  sequence.num_draft_tokens = num_drafts;
  batch.sequences.assign(static_cast<size_t>(rounds), sequence);
  std::vector<size_t> rows;
  for (const PlannedPass& pass : plan_step(batch, kSlack).passes) rows.push_back(pass.rows.size());
  return rows;
}

TEST(StepPlanTest, RoundsFillPasses) {
  using Rows = std::vector<size_t>;
  EXPECT_EQ(passes_of(64, 2), Rows{192});
  EXPECT_EQ(passes_of(32, 4), Rows{160});
  // Where there are several, they are as short as they can be.
  EXPECT_EQ(passes_of(64, 3), (Rows{128, 128}));
  EXPECT_EQ(passes_of(64, 4), (Rows{160, 160}));
  EXPECT_EQ(passes_of(64, 6), (Rows{154, 154, 140}));
  EXPECT_EQ(passes_of(65, 2), (Rows{126, 69}));
  EXPECT_EQ(passes_of(200, 0), (Rows{128, 72}));
  EXPECT_EQ(passes_of(50, 4), (Rows{125, 125}));
  EXPECT_EQ(passes_of(51, 4), (Rows{160, 95}));
  EXPECT_EQ(passes_of(62, 5), (Rows{192, 180}));
}

TEST(StepPlanTest, RowsArePaddedToWhatKernelsTake) {
  const std::vector<std::pair<int64_t, int>> expected = {
      {1, 8},   {8, 8},    {9, 16},    {17, 32},   {33, 64},   {65, 96},
      {96, 96}, {97, 128}, {129, 160}, {160, 160}, {161, 192}, {192, 192}};
  for (const auto& [rows, padded] : expected) EXPECT_EQ(padded_rows(rows), padded) << rows;
}

TEST(StepPlanTest, ScoredRowsNeedLogits) {
  std::vector<int32_t> tokens(100, 5);
  SpecBatch batch;
  SpecSequence sequence;
  sequence.tokens = tokens;
  sequence.scored_tokens = std::span<const int32_t>(tokens).first(50);
  batch.sequences.push_back(sequence);
  const StepLayout layout = plan_step(batch, 64);
  ASSERT_EQ(layout.passes.size(), 2U);
  EXPECT_TRUE(layout.passes[0].needs_logits);
  EXPECT_FALSE(layout.passes[1].needs_logits);
}

// Keys of a pass's sequences lie beside each other, a group's in what room there is.
TEST(StepPlanTest, TilesAreGroupedByTheirKeys) {
  const std::vector<int32_t> tokens(400, 5);
  SpecBatch batch;
  const std::vector<std::pair<int64_t, int64_t>> chunks = {{0, 70}, {900, 100}, {0, 64}, {190, 66}};
  for (const auto& [start, count] : chunks) {
    SpecSequence sequence;
    sequence.tokens = std::span(tokens).first(static_cast<size_t>(count));
    sequence.start_position = start;
    sequence.num_prompt_tokens = start + count + 1;
    batch.sequences.push_back(sequence);
  }
  const StepLayout layout = plan_step(batch, kSlack, 512, 1152);
  ASSERT_EQ(layout.wide.size(), 1U);
  const PlannedWidePass& pass = layout.wide[0];
  std::vector<int32_t> rows;
  for (const PlannedWideTile& tile : pass.tiles) rows.push_back(tile.widened_row);
  // 128 and 1,024 rows fill the first group, 64 and 256 are the second.
  EXPECT_EQ(rows, (std::vector<int32_t>{0, 0, 128, 128, 0, 64, 64}));
  ASSERT_EQ(pass.groups.size(), 2U);
  EXPECT_EQ(pass.groups[0].first_tile, 0);
  EXPECT_EQ(pass.groups[0].num_tiles, 4);
  EXPECT_EQ(pass.groups[0].blocks_of_tile, 8);  // two tiles share 1,000 keys
  EXPECT_EQ(pass.groups[1].first_tile, 4);
  EXPECT_EQ(pass.groups[1].num_tiles, 3);
  EXPECT_EQ(pass.groups[1].blocks_of_tile, 2);
  EXPECT_TRUE(plan_step(batch, kSlack, 512).wide[0].groups.empty());
}

constexpr int64_t kWideRows = 256;

// The rows of each sequence in the order in which they run.
std::vector<std::vector<PlannedRow>> rows_of_sequences(const SpecBatch& batch,
                                                       const StepLayout& layout) {
  std::vector<std::vector<PlannedRow>> rows(batch.sequences.size());
  const auto add = [&rows](const PlannedRow& row) {
    rows.at(static_cast<size_t>(row.sequence)).push_back(row);
  };
  for (const PlannedWidePass& pass : layout.wide) std::ranges::for_each(pass.rows, add);
  for (const PlannedPass& pass : layout.passes)
    if (pass.wide < 0) std::ranges::for_each(pass.rows, add);
  return rows;
}

// Tiles cover the pass in order; a tile has rows of one sequence and knows all of them.
void expect_wide_pass(const PlannedWidePass& pass) {
  EXPECT_GE(pass.rows.size(), 1U);
  EXPECT_LE(pass.rows.size(), static_cast<size_t>(kWideRows));
  int32_t next = 0;
  for (const PlannedWideTile& tile : pass.tiles) {
    EXPECT_EQ(tile.first_row, next);
    EXPECT_GE(tile.num_rows, 1);
    EXPECT_LE(tile.num_rows, kWideTileQueries);
    const PlannedRow& first = pass.rows.at(static_cast<size_t>(next));
    int32_t least = first.position;
    int32_t most = first.position;
    for (const PlannedRow& row : pass.rows) {
      if (row.sequence != first.sequence) continue;
      least = std::min(least, row.position);
      most = std::max(most, row.position);
    }
    EXPECT_EQ(tile.begin, least);
    EXPECT_EQ(tile.end, most + 1);
    for (int32_t r = next; r < next + tile.num_rows; ++r) {
      EXPECT_EQ(pass.rows.at(static_cast<size_t>(r)).sequence, first.sequence);
      EXPECT_EQ(pass.rows[static_cast<size_t>(r)].position, first.position + r - next);
    }
    next += tile.num_rows;
  }
  EXPECT_EQ(next, static_cast<int32_t>(pass.rows.size()));
}

// Passes of gathered rows come first, in the order of their wide passes, and name their rows.
void expect_gathered(const StepLayout& layout) {
  int last = 0;
  bool narrow = false;
  for (const PlannedPass& pass : layout.passes) {
    narrow |= pass.wide < 0;
    if (pass.wide < 0) continue;
    EXPECT_FALSE(narrow);
    EXPECT_GE(pass.wide, last);
    last = pass.wide;
    EXPECT_TRUE(pass.needs_logits);
    ASSERT_EQ(pass.sources.size(), pass.rows.size());
    for (size_t i = 0; i < pass.rows.size(); ++i) {
      const PlannedRow& source = layout.wide.at(static_cast<size_t>(pass.wide))
                                     .rows.at(static_cast<size_t>(pass.sources[i]));
      EXPECT_EQ(source.sequence, pass.rows[i].sequence);
      EXPECT_EQ(source.position, pass.rows[i].position);
      EXPECT_EQ(source.token, pass.rows[i].token);
    }
  }
}

// Which kernels a row goes through depends on its position alone; rows whose logits are wanted
// have a place in a pass.
void expect_prompts(const SpecBatch& batch, const StepLayout& layout) {
  for (const PlannedWidePass& pass : layout.wide)
    for (const PlannedRow& row : pass.rows)
      EXPECT_LT(row.position,
                batch.sequences.at(static_cast<size_t>(row.sequence)).num_prompt_tokens);
  std::vector<int64_t> scored(batch.sequences.size(), 0);
  for (const PlannedPass& pass : layout.passes)
    for (const PlannedRow& row : pass.rows) {
      const SpecSequence& sequence = batch.sequences.at(static_cast<size_t>(row.sequence));
      if (pass.wide < 0) {
        EXPECT_GE(row.position, sequence.num_prompt_tokens);
      }
      const bool wanted = row.position - sequence.start_position <
                          static_cast<int64_t>(sequence.scored_tokens.size());
      scored[static_cast<size_t>(row.sequence)] += wanted && pass.needs_logits ? 1 : 0;
    }
  for (size_t i = 0; i < scored.size(); ++i)
    EXPECT_EQ(scored[i], static_cast<int64_t>(batch.sequences[i].scored_tokens.size()));
}

TEST(WidePlanTest, PromptsGoWideWhateverTheirChunk) {
  std::vector<int32_t> tokens(400);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(seed);
    SpecBatch batch = random_batch(seed, tokens);
    std::mt19937 random(seed + 77);
    for (SpecSequence& sequence : batch.sequences) {
      const auto length = static_cast<int64_t>(sequence.tokens.size());
      // All of it, a part of it, or nothing is the prompt's; what drafts is not.
      const int64_t end = sequence.start_position + length;
      sequence.num_prompt_tokens =
          sequence.num_draft_tokens > 0
              ? sequence.start_position
              : std::max<int64_t>(0, end + static_cast<int64_t>(random() % 40) - 20);
    }
    const StepLayout layout = plan_step(batch, kSlack, kWideRows);
    const auto rows = rows_of_sequences(batch, layout);
    for (size_t i = 0; i < rows.size(); ++i) {
      const SpecSequence& sequence = batch.sequences[i];
      ASSERT_EQ(rows[i].size(),
                sequence.tokens.size() + static_cast<size_t>(sequence.num_draft_tokens));
      for (size_t r = 0; r < rows[i].size(); ++r)
        EXPECT_EQ(rows[i][r].position, sequence.start_position + static_cast<int64_t>(r));
    }
    for (const PlannedWidePass& pass : layout.wide) expect_wide_pass(pass);
    for (const PlannedPass& pass : layout.passes)
      if (pass.wide < 0) expect_pass(pass);
    expect_gathered(layout);
    expect_prompts(batch, layout);
    expect_entries(batch, layout);
    if (HasFailure()) return;
  }
}

// A tile sees keys that another one of its pass writes only if both are of one sequence.
TEST(StepPlanTest, KeysAreSettledUnlessTilesShareASequence) {
  const std::vector<int32_t> tokens(200, 7);
  const auto batch_of = [&](size_t first_length, int first_drafts) {
    SpecBatch batch;
    for (size_t i = 0; i < 3; ++i) {
      SpecSequence sequence;
      sequence.state_slot = static_cast<int32_t>(i);
      sequence.tokens = std::span(tokens).first(i == 0 ? first_length : 1);
      sequence.start_position = 50;
      sequence.samples = true;
      sequence.num_draft_tokens = i == 0 ? first_drafts : 2;
      batch.sequences.push_back(sequence);
    }
    return batch;
  };
  const auto settled = [&](const SpecBatch& batch, int64_t wide_rows = 0) {
    return sees_settled_keys(plan_step(batch, kSlack, wide_rows));
  };
  EXPECT_TRUE(settled(batch_of(1, 0)));
  EXPECT_TRUE(settled(batch_of(1, 7)));
  EXPECT_TRUE(settled(batch_of(1, 8)));
  EXPECT_FALSE(settled(batch_of(2, 8)));    // ten rows: two tiles
  EXPECT_FALSE(settled(batch_of(20, 0)));   // a chunk of three tiles
  EXPECT_FALSE(settled(batch_of(100, 0)));  // two passes
  SpecBatch prompt = batch_of(5, 0);
  prompt.sequences[0].num_prompt_tokens = 55;
  EXPECT_TRUE(settled(prompt));
  EXPECT_FALSE(settled(prompt, 64));  // a wide pass comes first
}

}  // namespace
}  // namespace tandem::gpu
