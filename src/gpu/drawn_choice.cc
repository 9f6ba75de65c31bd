// Steps whose tokens the device draws: those of samplers that do no more than truncate and draw.
#include <algorithm>
#include <utility>

#include "gpu/pair_step.h"
#include "ops/cuda/draw.h"

namespace tandem::gpu {

using ops::cuda::kLikeliest;
using ops::cuda::Likeliest;
using sampling::Sampler;
using speculation::SpecBatch;
using speculation::SpecResult;
using speculation::SpecSequence;

namespace {

// Of most requests; where none of a step asks for more, fewer tokens need to be found.
constexpr int64_t kCommonTopK = 64;

// Whether the likeliest tokens are all that may be drawn.
bool draws_from_likeliest(const Sampler& sampler) {
  const auto suppressed = static_cast<int64_t>(sampler.suppress_tokens().size());
  return !sampler.draws_from_all() && sampler.params().top_k + suppressed <= kLikeliest;
}

ops::KvPlaces places_of(const ops::KvPlaces& places, size_t sequence) {
  ops::KvPlaces own = places;
  own.block_table = places.blocks_of(sequence);
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

void PairStep::prepare_draws(const SpecBatch& batch, const StepLayout& layout) {
  make_rows();
  if (likeliest_.size_bytes() == 0) {
    const auto rows = static_cast<size_t>(control_.most().passes) * kPassRows;
    likeliest_ = ops::cuda::DeviceBuffer(rows * sizeof(Likeliest));
    likeliest_workspace_ = ops::cuda::DeviceBuffer(target_.likeliest_bytes());
    if (likeliest_workspace_.size_bytes() > 0)
      TANDEM_CUDA_CHECK(cudaMemsetAsync(likeliest_workspace_.data(), 0,
                                        likeliest_workspace_.size_bytes(), stream_.handle));
  }
  int64_t top_k = 1;
  for (const PlannedEntry& entry : layout.entries) {
    const sampling::SamplingParams& params = batch.sequences[entry.sequence].sampler->params();
    if (!params.greedy()) top_k = std::max(top_k, params.top_k);
  }
  const auto most = static_cast<int64_t>(options_.suppress_tokens.size()) + kCommonTopK;
  draw_depth_ =
      top_k <= kCommonTopK ? static_cast<int>(std::min<int64_t>(most, kLikeliest)) : kLikeliest;
}

// Where a screen leaves much open, rounds end early or run twice: then the head is better read.
bool PairStep::draws_through_screen() const {
  constexpr int64_t kPatience = 32;
  return num_undecided_ * kPatience <= num_draws_ + kPatience * kPatience;
}

void PairStep::record_draws(const StepLayout& layout, size_t index) {
  const ControlView& c = control_.device();
  const PlannedPass& pass = layout.passes[index];
  const size_t first = index * kPassRows;
  const int num_rows = pass.num_padded_rows();
  ops::cuda::HeadLogits head = head_of(pass);
  ops::cuda::DrawTokens draw{.num_rows = head.num_rows,
                             .likeliest = likeliest_.as<Likeliest>() + first,
                             .sequences = c.sequences + first,
                             .positions = c.positions + first,
                             .rules = c.draw_rules,
                             .suppressed = head.suppressed,
                             .num_suppressed = head.num_suppressed,
                             .slack = options_.draw_slack,
                             .tokens = chosen_.as<int32_t>() + first};
  const bool found =
      draws_through_screen() && target_.find_likeliest(stream_, num_rows,
                                                       {.logits = head,
                                                        .num_likeliest = draw_depth_,
                                                        .workspace = likeliest_workspace_.data(),
                                                        .exchange = nullptr,
                                                        .out = likeliest_.as<Likeliest>() + first},
                                                       workspace_);
  if (!found) {
    head.sums = target_.head(stream_, num_rows, workspace_);
    const ops::cuda::RowFacts* const facts = rows_->find(stream_, index, 0, head, {});
    draw.likeliest = &facts->likeliest;
    draw.stride = sizeof(*facts);
  }
  ops::cuda::draw_tokens(stream_, draw);
}

// The device's state of such a sequence is what it was before the step, and what the step wrote of
// its newest keys and values is written again.
void PairStep::decide_on_host(const SpecBatch& batch, size_t sequence, SpecResult& result) {
  SpecBatch alone;
  alone.sequences = {newest_of(batch.sequences[sequence])};
  alone.ring = places_of(batch.ring, sequence);
  alone.pages = places_of(batch.pages, sequence);
  const StepLayout layout = layout_of(alone);
  control_.fill(alone, layout, options_.draft_position_offset, false);
  SpecResult own;
  own.sequences.resize(1);
  const std::function<void()> meanwhile = std::exchange(meanwhile_, {});  // done already
  run_with_host(alone, layout, own);
  meanwhile_ = meanwhile;
  result.sequences[sequence] = std::move(own.sequences.front());
}

}  // namespace tandem::gpu
