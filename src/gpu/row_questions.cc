#include "gpu/row_questions.h"

#include <algorithm>
#include <vector>

namespace tandem::gpu {

using ops::cuda::kMaxAsked;

RowQuestions::RowQuestions(int max_passes, int max_sequences)
    : asked_size_(static_cast<size_t>(max_sequences) * kMaxAsked),
      num_targets_(static_cast<size_t>(max_passes) * kPassRows),
      host_((asked_size_ + num_targets_) * sizeof(int32_t) +
            static_cast<size_t>(max_sequences) * sizeof(ops::cuda::Draw)),
      device_(host_.size_bytes()) {}

void RowQuestions::fill(const speculation::SpecBatch& batch, const StepLayout& layout) {
  std::fill_n(host_.as<int32_t>(), asked_size_ + num_targets_, -1);
  auto* const draws =
      reinterpret_cast<ops::cuda::Draw*>(host_.as<int32_t>() + asked_size_ + num_targets_);
  std::fill_n(draws, asked_size_ / kMaxAsked, ops::cuda::Draw{});
  asks_ = false;
  draws_from_all_ = false;
  std::vector<int32_t> ids;
  for (const PlannedEntry& entry : layout.entries) {
    ids.clear();
    const sampling::Sampler& sampler = *batch.sequences[entry.sequence].sampler;
    sampler.add_asked_ids(ids);
    ids.resize(std::min<size_t>(ids.size(), kMaxAsked));
    std::ranges::copy(ids, host_.as<int32_t>() + entry.sequence * kMaxAsked);
    if (sampler.draws_from_all())
      draws[entry.sequence] = {
          .seed = sampler.seed(),
          .inverse_temperature = static_cast<float>(1 / sampler.params().temperature),
          .unused = 0};
    draws_from_all_ = draws_from_all_ || sampler.draws_from_all();
    asks_ = asks_ || !ids.empty() || sampler.draws_from_all();
  }
  int32_t* const targets = host_.as<int32_t>() + asked_size_;
  for (size_t pass = 0; pass < layout.passes.size(); ++pass)
    for (size_t i = 0; i < layout.passes[pass].rows.size(); ++i) {
      const PlannedRow& row = layout.passes[pass].rows[i];
      const speculation::SpecSequence& sequence =
          batch.sequences[static_cast<size_t>(row.sequence)];
      const auto index = static_cast<size_t>(row.position - sequence.start_position);
      if (index >= sequence.scored_tokens.size()) continue;
      targets[pass * kPassRows + i] = sequence.scored_tokens[index];
      asks_ = true;
    }
}

void RowQuestions::copy_to_device(const ops::cuda::Stream& stream) const {
  if (!asks_) return;
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(device_.data(), host_.as<void>(), host_.size_bytes(),
                                    cudaMemcpyHostToDevice, stream.handle));
}

std::span<const int32_t> RowQuestions::asked_of(size_t sequence) const {
  return {host_.as<int32_t>() + sequence * kMaxAsked, asks_ ? kMaxAsked : size_t{0}};
}

}  // namespace tandem::gpu
