#include "gpu/step_plan.h"

#include <algorithm>
#include <functional>

#include "speculation/acceptance.h"

namespace tandem::gpu {
namespace {

// Passes may be made shorter than kPassRows, but not below.
constexpr int64_t kShortPassRows = 96;

class Packer {
 public:
  Packer(StepLayout& layout, int64_t pass_rows, int64_t ring_slack)
      : layout_(layout), pass_rows_(pass_rows), ring_slack_(ring_slack) {}

  // Begins a new pass unless `num_rows` more rows fit.
  void reserve(int64_t num_rows) {
    if (free_rows() < num_rows) begin_pass();
  }
  // Rows of one sequence from `position` on, with these tokens and then `num_drafts` unknown ones.
  // Returns the index of the last known row.
  // The rows of the first `num_scored` need logits.
  int32_t add(int32_t sequence, std::span<const int32_t> tokens, int64_t position, int num_drafts,
              int64_t num_scored) {
    int32_t last_known = 0;
    const int64_t count = static_cast<int64_t>(tokens.size()) + num_drafts;
    int64_t in_pass = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (free_rows() == 0 || in_pass == ring_slack_) {
        begin_pass();
        in_pass = 0;
      }
      PlannedPass& pass = layout_.passes.back();
      const bool known = i < static_cast<int64_t>(tokens.size());
      if (known)
        last_known =
            static_cast<int32_t>((layout_.passes.size() - 1) * kPassRows + pass.rows.size());
      add_to_tile(pass, in_pass == 0);
      pass.needs_logits |= i < num_scored;
      pass.rows.push_back({.sequence = sequence,
                           .token = known ? tokens[static_cast<size_t>(i)] : 0,
                           .position = static_cast<int32_t>(position + i)});
      pass.max_keys = std::max(pass.max_keys, position + i + 1);
      ++in_pass;
    }
    return last_known;
  }

 private:
  // One allocation, not one for every doubling: this stands between two steps of the device.
  void begin_pass() {
    layout_.passes.emplace_back();
    layout_.passes.back().rows.reserve(static_cast<size_t>(kPassRows));
    layout_.passes.back().tiles.reserve(static_cast<size_t>(kPassRows));
  }
  int64_t free_rows() const {
    return layout_.passes.empty() || layout_.passes.back().wide >= 0
               ? 0
               : pass_rows_ - static_cast<int64_t>(layout_.passes.back().rows.size());
  }
  static void add_to_tile(PlannedPass& pass, bool first_of_sequence) {
    if (first_of_sequence || pass.tiles.back().num_rows == kTileQueries)
      pass.tiles.push_back({static_cast<int32_t>(pass.rows.size()), 0});
    ++pass.tiles.back().num_rows;
  }

  StepLayout& layout_;
  int64_t pass_rows_;
  int64_t ring_slack_;
};

// Rows of one sequence that are no prompt's: a round, or a chunk, which may be cut.
struct Run {
  int64_t num_rows;
  bool is_round;
};

int64_t count_passes(std::span<const Run> runs, int64_t pass_rows) {
  int64_t count = 0;
  int64_t free = 0;
  for (const Run& run : runs) {
    const bool fits = run.is_round ? free >= run.num_rows : free > 0;
    if (!fits) free = 0;
    const int64_t missing = std::max<int64_t>(run.num_rows - free, 0);
    const int64_t begun = ceil_div(missing, pass_rows);
    count += begun;
    free += begun * pass_rows - run.num_rows;
  }
  return count;
}

// Most rows of each pass: the fewest with which there are no more passes. What a pass costs goes in
// steps (padded_rows()), so passes of one size cost less than full ones and a rest.
int64_t pass_rows_of(std::span<const Run> runs) {
  const int64_t passes = count_passes(runs, kPassRows);
  if (passes < 2) return kPassRows;
  for (const int64_t rows : {kShortPassRows, int64_t{128}, int64_t{160}})
    if (count_passes(runs, rows) == passes) return rows;
  return kPassRows;
}

// Rows of prompts into wide passes, and those whose logits are wanted into passes of their own.
class WidePacker {
 public:
  WidePacker(StepLayout& layout, int64_t wide_rows) : layout_(layout), wide_rows_(wide_rows) {}

  // How many of a sequence's known tokens are rows of its prompt.
  int64_t num_rows(const speculation::SpecSequence& sequence) const {
    if (wide_rows_ == 0) return 0;
    return std::clamp<int64_t>(sequence.num_prompt_tokens - sequence.start_position, 0,
                               static_cast<int64_t>(sequence.tokens.size()));
  }

  void add(size_t index, const speculation::SpecSequence& sequence) {
    const int64_t count = num_rows(sequence);
    for (int64_t begin = 0; begin < count;) {
      if (layout_.wide.empty() || free_rows() == 0) layout_.wide.emplace_back();
      const int64_t end = std::min(count, begin + free_rows());
      add_part(index, sequence, begin, end);
      begin = end;
    }
    const bool last_is_wide = count == static_cast<int64_t>(sequence.tokens.size());
    if (sequence.samples && last_is_wide)
      entries_.push_back({.sequence = index, .first_row = last_gathered_});
  }
  // Of sequences whose newest row is one of these; they do not draft.
  const std::vector<PlannedEntry>& entries() const { return entries_; }

 private:
  int64_t free_rows() const {
    return wide_rows_ - static_cast<int64_t>(layout_.wide.back().rows.size());
  }

  void add_part(size_t index, const speculation::SpecSequence& sequence, int64_t begin,
                int64_t end) {
    PlannedWidePass& pass = layout_.wide.back();
    const auto first_position = static_cast<int32_t>(sequence.start_position);
    for (int64_t i = begin; i < end; ++i) {
      const auto row = static_cast<int32_t>(pass.rows.size());
      if ((i - begin) % kWideTileQueries == 0)
        pass.tiles.push_back({row, 0, first_position + static_cast<int32_t>(begin),
                              first_position + static_cast<int32_t>(end)});
      ++pass.tiles.back().num_rows;
      pass.rows.push_back({.sequence = static_cast<int32_t>(index),
                           .token = sequence.tokens[static_cast<size_t>(i)],
                           .position = first_position + static_cast<int32_t>(i)});
      const bool newest = sequence.samples && i + 1 == static_cast<int64_t>(sequence.tokens.size());
      if (newest || i < static_cast<int64_t>(sequence.scored_tokens.size())) gather(row);
    }
  }

  // The last pass's row `row` gets logits.
  void gather(int32_t row) {
    const auto wide = static_cast<int>(layout_.wide.size()) - 1;
    std::vector<PlannedPass>& passes = layout_.passes;
    if (passes.empty() || passes.back().wide != wide ||
        passes.back().rows.size() == static_cast<size_t>(kPassRows)) {
      passes.emplace_back();
      passes.back().wide = wide;
      passes.back().needs_logits = true;
    }
    last_gathered_ =
        static_cast<int32_t>((passes.size() - 1) * kPassRows + passes.back().rows.size());
    passes.back().sources.push_back(row);
    passes.back().rows.push_back(layout_.wide.back().rows[static_cast<size_t>(row)]);
  }

  StepLayout& layout_;
  int64_t wide_rows_;
  int32_t last_gathered_ = 0;  // its place among the rows of passes
  std::vector<PlannedEntry> entries_;
};

void group_tiles(PlannedWidePass& pass, int64_t widened_rows) {
  int64_t used = 0;
  int32_t sequence = -1;
  int32_t first_row = 0;  // of the tile's sequence
  for (size_t i = 0; i < pass.tiles.size(); ++i) {
    PlannedWideTile& tile = pass.tiles[i];
    const int32_t own = pass.rows[static_cast<size_t>(tile.first_row)].sequence;
    if (own != sequence) {
      sequence = own;
      const int64_t needed = widened_rows_of(tile.end);
      TANDEM_CHECK_LE(needed, widened_rows);
      if (pass.groups.empty() || used + needed > widened_rows) {
        pass.groups.push_back({.first_tile = static_cast<int>(i)});
        used = 0;
      }
      first_row = static_cast<int32_t>(used);
      used += needed;
    }
    tile.widened_row = first_row;
    PlannedWideGroup& group = pass.groups.back();
    ++group.num_tiles;
    const int tiles = (tile.end - tile.begin + kWideTileQueries - 1) / kWideTileQueries;
    const auto blocks = static_cast<int>(widened_rows_of(tile.end) / widened_rows_of(1));
    group.blocks_of_tile = std::max(group.blocks_of_tile, (blocks + tiles - 1) / tiles);
  }
}

}  // namespace

bool sees_settled_keys(const StepLayout& layout) {
  if (!layout.wide.empty() || layout.passes.size() != 1) return false;
  const PlannedPass& pass = layout.passes.front();
  const auto sequence_of = [&](const PlannedTile& tile) {
    return pass.rows[static_cast<size_t>(tile.first_row)].sequence;
  };
  return std::ranges::adjacent_find(pass.tiles, std::ranges::equal_to{}, sequence_of) ==
         pass.tiles.end();
}

speculation::SpecSequence newest_of(speculation::SpecSequence sequence) {
  sequence.start_position += static_cast<int64_t>(sequence.tokens.size()) - 1;
  sequence.tokens = sequence.tokens.last(1);
  sequence.scored_tokens = {};
  return sequence;
}

int64_t most_passes(int64_t max_rows, int64_t ring_slack, int64_t wide_rows) {
  // Behind the ring's slack a pass is left for the next one, however short it is, and where a round
  // does not fit. Besides, each wide pass may leave a pass of gathered rows half empty.
  const int64_t fewest = std::min(ring_slack, kShortPassRows - speculation::kMaxDraftTokens);
  const int64_t wide_passes = wide_rows > 0 ? ceil_div(max_rows, wide_rows) : 0;
  // Benchmarks take steps of more rows.
  const int64_t few_rows_passes = std::min<int64_t>(ceil_div(max_rows, 8), 64);
  return std::max(ceil_div(max_rows, fewest), few_rows_passes) + wide_passes;
}

StepLayout plan_step(const speculation::SpecBatch& batch, int64_t ring_slack, int64_t wide_rows,
                     int64_t widened_rows) {
  StepLayout layout;
  WidePacker wide(layout, wide_rows);
  for (size_t i = 0; i < batch.sequences.size(); ++i) wide.add(i, batch.sequences[i]);
  if (widened_rows > 0)
    for (PlannedWidePass& pass : layout.wide) group_tiles(pass, widened_rows);
  layout.entries.reserve(batch.sequences.size());
  std::vector<size_t> order(batch.sequences.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  // Rounds before chunks, and of these the drafting ones first.
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) {
    const speculation::SpecSequence& sequence = batch.sequences[i];
    return sequence.num_draft_tokens > 0 ? 2 : sequence.tokens.size() == 1 ? 1 : 0;
  });
  std::vector<Run> runs;
  runs.reserve(order.size());
  for (const size_t i : order) {
    const speculation::SpecSequence& sequence = batch.sequences[i];
    TANDEM_CHECK(!sequence.tokens.empty());
    const int64_t rows = static_cast<int64_t>(sequence.tokens.size()) - wide.num_rows(sequence);
    if (rows > 0 || sequence.num_draft_tokens > 0)
      runs.push_back({rows + sequence.num_draft_tokens, sequence.num_draft_tokens > 0});
  }
  Packer packer(layout, pass_rows_of(runs), ring_slack);
  for (const size_t i : order) {
    const speculation::SpecSequence& sequence = batch.sequences[i];
    const int drafts = sequence.num_draft_tokens;
    const int64_t num_wide = wide.num_rows(sequence);
    if (num_wide == static_cast<int64_t>(sequence.tokens.size())) {
      TANDEM_CHECK_EQ(drafts, 0);
      continue;
    }
    packer.reserve(drafts > 0 ? 1 + drafts : 1);
    const int32_t newest =
        packer.add(static_cast<int32_t>(i), sequence.tokens.subspan(static_cast<size_t>(num_wide)),
                   sequence.start_position + num_wide, drafts,
                   static_cast<int64_t>(sequence.scored_tokens.size()) - num_wide);
    if (!sequence.samples) continue;
    layout.passes[static_cast<size_t>(newest / kPassRows)].needs_logits = true;
    layout.entries.push_back({.sequence = i, .first_row = newest, .num_drafts = drafts});
    layout.num_drafting += drafts > 0 ? 1 : 0;
    layout.max_drafts = std::max(layout.max_drafts, drafts);
  }
  layout.entries.insert(layout.entries.end(), wide.entries().begin(), wide.entries().end());
  return layout;
}

}  // namespace tandem::gpu
