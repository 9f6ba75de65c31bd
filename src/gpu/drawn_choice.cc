// Steps whose tokens the device draws: those of samplers that do no more than truncate and draw.
#include <algorithm>
#include <limits>
#include <utility>

#include "gpu/pair_step.h"
#include "ops/cuda/draw.h"

namespace tandem::gpu {

using ops::cuda::kLikeliest;
using sampling::Sampler;
using speculation::SpecBatch;
using speculation::SpecResult;
using speculation::SpecSequence;

namespace {

// Whether the likeliest tokens are all that may be drawn.
bool draws_from_likeliest(const Sampler& sampler) {
  const auto suppressed = static_cast<int64_t>(sampler.suppress_tokens().size());
  return !sampler.draws_from_all() && sampler.params().top_k + suppressed <= kLikeliest;
}

ops::KvPlaces places_of(const ops::KvPlaces& places, size_t sequence) {
  ops::KvPlaces own = places;
  const auto columns = static_cast<size_t>(places.max_blocks);
  own.block_table = places.block_table.subspan(sequence * columns, columns);
  return own;
}

}  // namespace

PairStep::Choice PairStep::choice_of(const SpecBatch& batch, const StepLayout& layout) const {
  const bool scores = std::ranges::any_of(
      batch.sequences, [](const SpecSequence& s) { return !s.scored_tokens.empty(); });
  if (scores) return Choice::kHost;
  Choice choice = Choice::kGreedy;
  for (const PlannedEntry& entry : layout.entries) {
    const SpecSequence& sequence = batch.sequences[entry.sequence];
    const Sampler& sampler = *sequence.sampler;
    if (sequence.constraint != nullptr || !sampler.is_plain() ||
        sampler.suppress_tokens() != options_.suppress_tokens)
      return Choice::kHost;
    if (sampler.params().greedy()) continue;
    if (options_.whole_rows || !draws_from_likeliest(sampler)) return Choice::kHost;
    choice = Choice::kDraw;
  }
  return choice;
}

void PairStep::record_draws(const StepLayout& layout, size_t index) {
  const ControlView& c = control_.device();
  const PlannedPass& pass = layout.passes[index];
  const size_t first = index * kPassRows;
  ops::cuda::HeadLogits head = head_of(pass);
  head.sums = target_.head(stream_, pass.num_padded_rows(), workspace_);
  const ops::cuda::RowFacts* const facts = rows_->find(stream_, index, 0, head, {});
  ops::cuda::draw_tokens(stream_, {.num_rows = head.num_rows,
                                   .likeliest = &facts->likeliest,
                                   .stride = sizeof(*facts),
                                   .sequences = c.sequences + first,
                                   .positions = c.positions + first,
                                   .rules = c.draw_rules,
                                   .suppressed = head.suppressed,
                                   .num_suppressed = head.num_suppressed,
                                   .slack = options_.draw_slack,
                                   .tokens = chosen_.as<int32_t>() + first});
}

// The device's state of such a sequence is what it was before the step, and what the step wrote of
// its keys and values is written again.
void PairStep::decide_on_host(const SpecBatch& batch, size_t sequence, SpecResult& result) {
  SpecBatch alone;
  alone.sequences = {batch.sequences[sequence]};
  alone.ring = places_of(batch.ring, sequence);
  alone.pages = places_of(batch.pages, sequence);
  const StepLayout layout = plan_step(alone, ring_slack_, wide_ ? wide_->capacity : 0);
  control_.fill(alone, layout, options_.draft_position_offset, false);
  SpecResult own;
  own.sequences.resize(1);
  const std::function<void()> meanwhile = std::exchange(meanwhile_, {});  // done already
  run_with_host(alone, layout, own);
  meanwhile_ = meanwhile;
  result.sequences[sequence] = std::move(own.sequences.front());
}

}  // namespace tandem::gpu
