// Steps in which the host chooses tokens. The device drafts, runs the target and tells of each row
// what mostly decides; rows that stay undecided lie on the device until the host has chosen.
#include <algorithm>
#include <optional>

#include "gpu/pair_step.h"
#include "speculation/emit.h"

namespace tandem::gpu {

using ops::cuda::KeptState;
using speculation::SpecBatch;
using speculation::SpecResult;
using speculation::SpecSequence;

namespace {

// Passes with logits take turns.
int slot_of(const StepLayout& layout, size_t pass) {
  const auto before = std::ranges::count_if(
      layout.passes.begin(), layout.passes.begin() + static_cast<std::ptrdiff_t>(pass),
      [](const PlannedPass& p) { return p.needs_logits; });
  return static_cast<int>(before % LogitRows::kSlots);
}

// Whether nobody will need a row of logits whose slot has been taken since; `whole`: all need
// theirs.
bool rows_stay(const SpecBatch& batch, const StepLayout& layout, bool whole) {
  const auto with_logits =
      std::ranges::count_if(layout.passes, [](const PlannedPass& p) { return p.needs_logits; });
  if (with_logits <= LogitRows::kSlots) return true;
  return !whole && std::ranges::all_of(layout.entries, [&](const PlannedEntry& entry) {
    const SpecSequence& sequence = batch.sequences[entry.sequence];
    return sequence.constraint == nullptr &&
           sequence.sampler->needs_no_row(ops::cuda::kLikeliest) &&
           sequence.sampler->params().logprob_token_ids.empty();
  });
}

// The first mask of every constraint, while the device works: it stays until the token is taken.
void prepare_masks(const SpecBatch& batch, const StepLayout& layout) {
  for (const PlannedEntry& entry : layout.entries)
    if (base::TokenConstraint* const constraint = batch.sequences[entry.sequence].constraint)
      (void)constraint->allowed();
}

}  // namespace

void PairStep::run_with_host(const SpecBatch& batch, const StepLayout& layout, SpecResult& result) {
  if (rows_ == nullptr)
    rows_ = std::make_unique<LogitRows>(control_.sizes().max_passes, control_.sizes().max_entries,
                                        target_.config().vocab_size, options_.whole_rows);
  rows_->questions().fill(batch, layout);
  if (rows_stay(batch, layout, options_.whole_rows)) {
    launch_step(layout, Choice::kHost);
    prepare_masks(batch, layout);
    TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
    for (size_t i = 0; i < layout.passes.size(); ++i) finish_pass(batch, layout, i, result);
  } else {
    run_passes(batch, layout, result);
  }
  add_times(layout, result);
  keep_states();
}

void PairStep::run_passes(const SpecBatch& batch, const StepLayout& layout, SpecResult& result) {
  control_.copy_to_device(stream_);
  rows_->questions().copy_to_device(stream_);
  record_moment(Moment::kBegin);
  record_drafts(layout);
  record_moment(Moment::kDrafted);
  record_draft_copies();
  next_wide_ = 0;
  std::optional<size_t> running;  // its tokens are still to be chosen
  for (size_t i = 0; i < layout.passes.size(); ++i) {
    record_pass(layout, i);
    if (!layout.passes[i].needs_logits) continue;
    record_rows(layout, i);
    rows_->mark_end(stream_, slot_of(layout, i));
    if (running) {
      rows_->wait_for_end(slot_of(layout, *running));
      finish_pass(batch, layout, *running, result);
    } else {
      prepare_masks(batch, layout);
    }
    running = i;
  }
  record_wide(layout, layout.wide.size());
  record_moment(Moment::kEnd);
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
  if (running) finish_pass(batch, layout, *running, result);
}

void PairStep::record_draft_copies() {
  const ControlView& c = control_.device();
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_tokens_.as<void>(), c.tokens, host_tokens_.size_bytes(),
                                    cudaMemcpyDeviceToHost, stream_.handle));
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_num_drafts_.as<void>(), c.num_drafts,
                                    host_num_drafts_.size_bytes(), cudaMemcpyDeviceToHost,
                                    stream_.handle));
}

void PairStep::record_rows(const StepLayout& layout, size_t index) {
  const PlannedPass& pass = layout.passes[index];
  ops::cuda::HeadLogits head = head_of(pass);
  head.sums = target_.head(stream_, pass.num_padded_rows(), workspace_);
  rows_->record(stream_, index, slot_of(layout, index), head,
                control_.device().sequences + index * kPassRows,
                control_.device().positions + index * kPassRows);
}

void PairStep::score_pass(const SpecBatch& batch, const StepLayout& layout, size_t pass,
                          SpecResult& result) {
  const std::vector<PlannedRow>& rows = layout.passes[pass].rows;
  for (size_t i = 0; i < rows.size(); ++i) {
    const SpecSequence& sequence = batch.sequences[static_cast<size_t>(rows[i].sequence)];
    const auto index = static_cast<size_t>(rows[i].position - sequence.start_position);
    if (index >= sequence.scored_tokens.size()) continue;
    result.sequences[static_cast<size_t>(rows[i].sequence)].scores.push_back(
        rows_->score({.pass = pass, .row = static_cast<int64_t>(i)}, sequence.scored_tokens[index],
                     sequence.num_scored_top));
  }
}

void PairStep::finish_pass(const SpecBatch& batch, const StepLayout& layout, size_t pass,
                           SpecResult& result) {
  if (!layout.passes[pass].needs_logits) return;
  score_pass(batch, layout, pass, result);
  const int slot = slot_of(layout, pass);
  const auto pass_begin = static_cast<int32_t>(pass) * kPassRows;
  for (size_t i = 0; i < layout.entries.size(); ++i) {
    const PlannedEntry& entry = layout.entries[i];
    if (entry.first_row < pass_begin || entry.first_row >= pass_begin + kPassRows) continue;
    const SpecSequence& sequence = batch.sequences[entry.sequence];
    const std::span<const int32_t> drafts(
        host_tokens_.as<int32_t>() + entry.first_row + 1,
        static_cast<size_t>(entry.num_drafts > 0 ? host_num_drafts_.as<int32_t>()[i] : 0));
    const int64_t last = speculation::emit_tokens(
        sequence, drafts,
        [&](int64_t row, int64_t position, sampling::TokenMask allowed) {
          return rows_->choose(
              *sequence.sampler,
              {.pass = pass, .slot = slot, .row = entry.first_row - pass_begin + row},
              entry.sequence, position, allowed);
        },
        {options_.synthetic, options_.synthetic_seed}, result.sequences[entry.sequence]);
    host_kept_.as<KeptState>()[num_kept_++] = {entry.first_row + static_cast<int32_t>(last),
                                               sequence.state_slot};
  }
}

void PairStep::keep_states() {
  if (num_kept_ == 0) return;
  ops::cuda::keep_states(stream_, {.count = num_kept_,
                                   .hidden = static_cast<int>(target_.config().hidden_size),
                                   .kept = host_kept_.as<KeptState>(),
                                   .hidden_rows = hidden_.as<uint16_t>(),
                                   .states = states_.as<uint16_t>()});
  num_kept_ = 0;
}

}  // namespace tandem::gpu
