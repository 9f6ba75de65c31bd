// Steps in which the host chooses tokens: sampling, penalties, masks, log-probabilities. The device
// drafts and runs the target; logits come to the host a pass at a time.
#include <algorithm>

#include "gpu/pair_step.h"
#include "sampling/score.h"
#include "speculation/emit.h"

namespace tandem::gpu {

using speculation::SpecBatch;
using speculation::SpecResult;
using speculation::SpecSequence;

void PairStep::run_with_host(const SpecBatch& batch, const StepLayout& layout, SpecResult& result) {
  const auto vocab = static_cast<size_t>(target_.config().vocab_size);
  if (host_logits_.size_bytes() == 0) {
    logits_ = ops::cuda::DeviceBuffer(kPassRows * vocab * sizeof(float));
    host_logits_ = ops::cuda::PinnedBuffer(kPassRows * vocab * sizeof(float));
  }
  control_.copy_to_device(stream_);
  record_drafts(layout);
  const ControlView& c = control_.device();
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_tokens_.as<void>(), c.tokens, host_tokens_.size_bytes(),
                                    cudaMemcpyDeviceToHost, stream_.handle));
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_num_drafts_.as<void>(), c.num_drafts,
                                    host_num_drafts_.size_bytes(), cudaMemcpyDeviceToHost,
                                    stream_.handle));
  next_wide_ = 0;
  for (size_t i = 0; i < layout.passes.size(); ++i) {
    ops::cuda::HeadLogits head;
    record_pass(layout, i, &head);
    if (!layout.passes[i].needs_logits) continue;
    ops::cuda::full_logits(stream_, head, nullptr, head.num_rows, logits_.as<float>());
    TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_logits_.as<void>(), logits_.data(),
                                      static_cast<size_t>(head.num_rows) * vocab * sizeof(float),
                                      cudaMemcpyDeviceToHost, stream_.handle));
    TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
    choose_on_host(batch, layout, i, result);
  }
  record_wide(layout, layout.wide.size());
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
}

void PairStep::choose_on_host(const SpecBatch& batch, const StepLayout& layout, size_t pass,
                              SpecResult& result) {
  const auto vocab = static_cast<size_t>(target_.config().vocab_size);
  const auto logits_at = [&](int64_t place) {
    return std::span<const float>(host_logits_.as<float>() + place * static_cast<int64_t>(vocab),
                                  vocab);
  };
  const auto pass_begin = static_cast<int32_t>(pass) * kPassRows;
  const std::vector<PlannedRow>& rows = layout.passes[pass].rows;
  for (size_t i = 0; i < rows.size(); ++i) {
    const SpecSequence& sequence = batch.sequences[static_cast<size_t>(rows[i].sequence)];
    const auto index = static_cast<size_t>(rows[i].position - sequence.start_position);
    if (index >= sequence.scored_tokens.size()) continue;
    result.sequences[static_cast<size_t>(rows[i].sequence)].scores.push_back(
        sampling::score_token(logits_at(static_cast<int64_t>(i)), sequence.scored_tokens[index],
                              sequence.num_scored_top));
  }
  const auto row_bytes = static_cast<size_t>(target_.config().hidden_size * 2);
  for (size_t i = 0; i < layout.entries.size(); ++i) {
    const PlannedEntry& entry = layout.entries[i];
    if (entry.first_row < pass_begin || entry.first_row >= pass_begin + kPassRows) continue;
    const SpecSequence& sequence = batch.sequences[entry.sequence];
    const std::span<const int32_t> drafts(
        host_tokens_.as<int32_t>() + entry.first_row + 1,
        static_cast<size_t>(entry.num_drafts > 0 ? host_num_drafts_.as<int32_t>()[i] : 0));
    const int64_t last = speculation::emit_tokens(
        sequence, drafts,
        [&](int64_t row) { return logits_at(entry.first_row - pass_begin + row); },
        {options_.synthetic, options_.synthetic_seed}, result.sequences[entry.sequence]);
    TANDEM_CUDA_CHECK(cudaMemcpyAsync(
        states_.as<char>() + static_cast<size_t>(sequence.state_slot) * row_bytes,
        hidden_.as<char>() + static_cast<size_t>(entry.first_row + last) * row_bytes, row_bytes,
        cudaMemcpyDeviceToDevice, stream_.handle));
  }
}

}  // namespace tandem::gpu
