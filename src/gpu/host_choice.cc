// Steps in which the host chooses tokens. The device drafts and runs the target; to the host come
// the likeliest tokens of each row, or, where penalties, masks or log-probabilities need them,
// whole rows of logits, a pass at a time.
#include <algorithm>
#include <array>

#include "gpu/pair_step.h"
#include "sampling/score.h"
#include "speculation/emit.h"

namespace tandem::gpu {

using ops::cuda::KeptState;
using ops::cuda::TopTokens;
using speculation::SpecBatch;
using speculation::SpecResult;
using speculation::SpecSequence;

namespace {

sampling::TokenChoice choose_among(const TopTokens& top, const sampling::Sampler& sampler,
                                   int64_t position) {
  std::array<sampling::Candidate, ops::cuda::kTopTokens> candidates;
  const auto count = static_cast<size_t>(top.count);
  for (size_t i = 0; i < count; ++i) candidates[i] = {top.logits[i], top.ids[i]};
  return sampler.choose_among(std::span(candidates).first(count), position);
}

}  // namespace

void PairStep::run_with_candidates(const SpecBatch& batch, const StepLayout& layout,
                                   SpecResult& result) {
  if (host_top_.size_bytes() == 0) {
    const auto vocab_size = static_cast<int>(target_.config().vocab_size);
    const auto rows = static_cast<size_t>(control_.sizes().max_passes) * kPassRows;
    top_ = ops::cuda::DeviceBuffer(rows * sizeof(TopTokens));
    host_top_ = ops::cuda::PinnedBuffer(rows * sizeof(TopTokens));
    top_scratch_ = ops::cuda::DeviceBuffer(ops::cuda::top_scratch_bytes(kPassRows, vocab_size));
  }
  launch_step(layout, Choice::kCandidates);
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
  add_times(layout, result);
  for (size_t i = 0; i < layout.passes.size(); ++i) {
    if (!layout.passes[i].needs_logits) continue;
    const TopTokens* const rows = host_top_.as<TopTokens>() + i * kPassRows;
    emit_pass(
        batch, layout, i,
        [rows](const sampling::Sampler& sampler, int64_t place, int64_t position,
               sampling::TokenMask) { return choose_among(rows[place], sampler, position); },
        result);
  }
  keep_states();
}

void PairStep::record_draft_copies() {
  const ControlView& c = control_.device();
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_tokens_.as<void>(), c.tokens, host_tokens_.size_bytes(),
                                    cudaMemcpyDeviceToHost, stream_.handle));
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_num_drafts_.as<void>(), c.num_drafts,
                                    host_num_drafts_.size_bytes(), cudaMemcpyDeviceToHost,
                                    stream_.handle));
}

void PairStep::record_top(size_t index, const ops::cuda::HeadLogits& head) {
  TopTokens* const rows = top_.as<TopTokens>() + index * kPassRows;
  ops::cuda::top_rows(stream_, head, top_scratch_.data(), rows);
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_top_.as<TopTokens>() + index * kPassRows, rows,
                                    static_cast<size_t>(head.num_rows) * sizeof(TopTokens),
                                    cudaMemcpyDeviceToHost, stream_.handle));
}

void PairStep::run_with_logits(const SpecBatch& batch, const StepLayout& layout,
                               SpecResult& result) {
  const auto vocab = static_cast<size_t>(target_.config().vocab_size);
  if (host_logits_.size_bytes() == 0) {
    logits_ = ops::cuda::DeviceBuffer(kPassRows * vocab * sizeof(float));
    host_logits_ = ops::cuda::PinnedBuffer(kPassRows * vocab * sizeof(float));
  }
  control_.copy_to_device(stream_);
  record_drafts(layout);
  record_draft_copies();
  const auto choose = [this](const sampling::Sampler& sampler, int64_t place, int64_t position,
                             sampling::TokenMask allowed) {
    return sampler.choose(host_logits_at(place), position, allowed);
  };
  next_wide_ = 0;
  for (size_t i = 0; i < layout.passes.size(); ++i) {
    const PlannedPass& pass = layout.passes[i];
    record_pass(layout, i);
    if (!pass.needs_logits) continue;
    ops::cuda::HeadLogits head = head_of(pass);
    head.sums = target_.head(stream_, pass.num_padded_rows(), workspace_);
    ops::cuda::full_logits(stream_, head, nullptr, head.num_rows, logits_.as<float>());
    TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_logits_.as<void>(), logits_.data(),
                                      static_cast<size_t>(head.num_rows) * vocab * sizeof(float),
                                      cudaMemcpyDeviceToHost, stream_.handle));
    TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
    score_pass(batch, layout, i, result);
    emit_pass(batch, layout, i, choose, result);
  }
  record_wide(layout, layout.wide.size());
  keep_states();
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
}

std::span<const float> PairStep::host_logits_at(int64_t place) const {
  const int64_t vocab = target_.config().vocab_size;
  return {host_logits_.as<float>() + place * vocab, static_cast<size_t>(vocab)};
}

void PairStep::score_pass(const SpecBatch& batch, const StepLayout& layout, size_t pass,
                          SpecResult& result) {
  const std::vector<PlannedRow>& rows = layout.passes[pass].rows;
  for (size_t i = 0; i < rows.size(); ++i) {
    const SpecSequence& sequence = batch.sequences[static_cast<size_t>(rows[i].sequence)];
    const auto index = static_cast<size_t>(rows[i].position - sequence.start_position);
    if (index >= sequence.scored_tokens.size()) continue;
    result.sequences[static_cast<size_t>(rows[i].sequence)].scores.push_back(
        sampling::score_token(host_logits_at(static_cast<int64_t>(i)),
                              sequence.scored_tokens[index], sequence.num_scored_top));
  }
}

void PairStep::emit_pass(const SpecBatch& batch, const StepLayout& layout, size_t pass,
                         const ChooseAt& choose, SpecResult& result) {
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
          return choose(*sequence.sampler, entry.first_row - pass_begin + row, position, allowed);
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
