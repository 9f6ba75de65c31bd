#include "gpu/step_plan.h"

#include <algorithm>

namespace tandem::gpu {
namespace {

class Packer {
 public:
  Packer(StepLayout& layout, int64_t ring_slack) : layout_(layout), ring_slack_(ring_slack) {}

  // Begins a new pass unless `num_rows` more rows fit.
  void reserve(int64_t num_rows) {
    if (layout_.passes.empty() || free_rows() < num_rows) layout_.passes.emplace_back();
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
        layout_.passes.emplace_back();
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
  int64_t free_rows() const {
    return layout_.passes.empty()
               ? 0
               : kPassRows - static_cast<int64_t>(layout_.passes.back().rows.size());
  }
  static void add_to_tile(PlannedPass& pass, bool first_of_sequence) {
    if (first_of_sequence || pass.tiles.back().num_rows == kTileQueries)
      pass.tiles.push_back({static_cast<int32_t>(pass.rows.size()), 0});
    ++pass.tiles.back().num_rows;
  }

  StepLayout& layout_;
  int64_t ring_slack_;
};

}  // namespace

StepLayout plan_step(const speculation::SpecBatch& batch, int64_t ring_slack) {
  StepLayout layout;
  Packer packer(layout, ring_slack);
  std::vector<size_t> order(batch.sequences.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  // Rounds before chunks, and of these the drafting ones first.
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) {
    const speculation::SpecSequence& sequence = batch.sequences[i];
    return sequence.num_draft_tokens > 0 ? 2 : sequence.tokens.size() == 1 ? 1 : 0;
  });
  for (const size_t i : order) {
    const speculation::SpecSequence& sequence = batch.sequences[i];
    TANDEM_CHECK(!sequence.tokens.empty());
    const int drafts = sequence.num_draft_tokens;
    packer.reserve(drafts > 0 ? 1 + drafts : 1);
    const int32_t newest =
        packer.add(static_cast<int32_t>(i), sequence.tokens, sequence.start_position, drafts,
                   static_cast<int64_t>(sequence.scored_tokens.size()));
    if (!sequence.samples) continue;
    layout.passes[static_cast<size_t>(newest / kPassRows)].needs_logits = true;
    layout.entries.push_back({.sequence = i, .first_row = newest, .num_drafts = drafts});
    layout.num_drafting += drafts > 0 ? 1 : 0;
    layout.max_drafts = std::max(layout.max_drafts, drafts);
  }
  return layout;
}

}  // namespace tandem::gpu
