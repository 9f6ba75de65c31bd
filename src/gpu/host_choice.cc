// Steps in which the host chooses tokens. The device drafts, runs the target and tells of each row
// what mostly decides; rows that stay undecided lie on the device until the host has chosen.
#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "gpu/pair_step.h"
#include "speculation/emit.h"

namespace tandem::gpu {

using ops::cuda::KeptState;
using speculation::SpecBatch;
using speculation::SpecResult;
using speculation::SpecSequence;

namespace {

// Threads that choose, and sequences for which another one is worth waking.
constexpr int kMaxChoosers = 8;
constexpr int64_t kChooserGrain = 2;

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
           sequence.sampler->needs_no_row(ops::cuda::kLikeliest, ops::cuda::kMaxAsked) &&
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

void PairStep::make_rows() {
  if (rows_ != nullptr) return;
  rows_ = std::make_unique<LogitRows>(control_.most().passes, control_.most().entries,
                                      target_.config().vocab_size, options_.whole_rows);
}

void PairStep::run_with_host(const SpecBatch& batch, const StepLayout& layout, SpecResult& result) {
  make_rows();
  if (choosers_ == nullptr) {
    const auto cores = static_cast<int>(std::thread::hardware_concurrency());
    choosers_ = std::make_unique<core::ThreadPool>(std::clamp(cores, 1, kMaxChoosers));
  }
  rows_->questions().fill(batch, layout);
  if (rows_stay(batch, layout, options_.whole_rows)) {
    launch_step(layout, Choice::kHost);
    prepare_masks(batch, layout);
    TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
    for (size_t i = 0; i < layout.passes.size(); ++i) finish_pass(batch, layout, i, result);
  } else {
    run_passes(batch, layout, result);
  }
  note_end({});
  add_times(layout, result);
  keep_states();
}

void PairStep::run_passes(const SpecBatch& batch, const StepLayout& layout, SpecResult& result) {
  settled_ = true;
  do_meanwhile();
  record_start(layout, Choice::kHost, StepPart::kWhole);
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
  const size_t num_rows = static_cast<size_t>(control_.sizes().passes) * kPassRows;
  const auto num_entries = static_cast<size_t>(control_.sizes().entries);
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_tokens_.as<void>(), c.tokens, num_rows * sizeof(int32_t),
                                    cudaMemcpyDeviceToHost, stream_.handle));
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_num_drafts_.as<void>(), c.num_drafts,
                                    num_entries * sizeof(int32_t), cudaMemcpyDeviceToHost,
                                    stream_.handle));
}

void PairStep::record_rows(const StepLayout& layout, size_t index) {
  const PlannedPass& pass = layout.passes[index];
  ops::cuda::HeadLogits head = head_of(pass);
  head.sums = target_.head(stream_, pass.num_padded_rows(), workspace_);
  const auto first = static_cast<int64_t>(index) * kPassRows;
  rows_->record(stream_, index, slot_of(layout, index), head, control_.device().sequences + first,
                control_.device().positions + first);
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
  const auto pass_begin = static_cast<int32_t>(pass) * kPassRows;
  std::vector<size_t> entries;  // of this pass
  for (size_t i = 0; i < layout.entries.size(); ++i) {
    const int32_t first_row = layout.entries[i].first_row;
    if (first_row >= pass_begin && first_row < pass_begin + kPassRows) entries.push_back(i);
  }
  KeptState* const kept = host_kept_.as<KeptState>() + num_kept_;
  num_kept_ += static_cast<int>(entries.size());
  // Sequences share nothing. What a device throws goes to the step's caller.
  std::mutex mutex;
  std::exception_ptr failure;
  const auto emit = [&](int64_t begin, int64_t end) {
    try {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
        kept[i] = emit_entry(batch, layout, pass, entries[i], result);
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  };
  choosers_->parallel_for(static_cast<int64_t>(entries.size()), kChooserGrain, emit);
  if (failure) std::rethrow_exception(failure);
}

KeptState PairStep::emit_entry(const SpecBatch& batch, const StepLayout& layout, size_t pass,
                               size_t index, SpecResult& result) {
  const PlannedEntry& entry = layout.entries[index];
  const SpecSequence& sequence = batch.sequences[entry.sequence];
  const int32_t first_row = entry.first_row - static_cast<int32_t>(pass) * kPassRows;
  const int slot = slot_of(layout, pass);
  const std::span<const int32_t> drafts(
      host_tokens_.as<int32_t>() + entry.first_row + 1,
      static_cast<size_t>(entry.num_drafts > 0 ? host_num_drafts_.as<int32_t>()[index] : 0));
  const int64_t last = speculation::emit_tokens(
      sequence, drafts,
      [&](int64_t row, int64_t position, sampling::TokenMask allowed) {
        return rows_->choose(*sequence.sampler,
                             {.pass = pass, .slot = slot, .row = first_row + row}, entry.sequence,
                             position, allowed);
      },
      {options_.synthetic, options_.synthetic_seed}, result.sequences[entry.sequence]);
  return {entry.first_row + static_cast<int32_t>(last), sequence.state_slot};
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
