// What the host asks about rows of logits beside their likeliest tokens: ids of a sequence's
// sampler, how it draws where every token may come, and the known token that follows a row of a
// prompt.
#pragma once

#include <cstdint>
#include <span>

#include "gpu/step_plan.h"
#include "ops/cuda/device.h"
#include "ops/cuda/row_facts.h"

namespace tandem::gpu {

class RowQuestions {
 public:
  RowQuestions(int max_passes, int max_sequences);

  void fill(const speculation::SpecBatch& batch, const StepLayout& layout);
  // Nothing where nothing is asked.
  void copy_to_device(const ops::cuda::Stream& stream) const;

  bool asks() const { return asks_; }
  bool draws_from_all() const { return draws_from_all_; }
  // On the device; null where nothing is asked.
  const int32_t* asked() const { return asks_ ? device_.as<int32_t>() : nullptr; }
  const int32_t* targets(size_t pass) const {
    return asks_ ? device_.as<int32_t>() + asked_size_ + pass * kPassRows : nullptr;
  }
  const ops::cuda::Draw* draws() const {
    return draws_from_all_ ? reinterpret_cast<const ops::cuda::Draw*>(targets(0) + num_targets_)
                           : nullptr;
  }
  // Of one sequence of the batch, on the host: ids, then -1.
  std::span<const int32_t> asked_of(size_t sequence) const;

 private:
  size_t asked_size_ = 0;
  size_t num_targets_ = 0;
  bool asks_ = false;
  bool draws_from_all_ = false;
  // [max_sequences, kMaxAsked] asked, [max_passes * kPassRows] targets, [max_sequences] draws.
  ops::cuda::PinnedBuffer host_;
  ops::cuda::DeviceBuffer device_;
};

}  // namespace tandem::gpu
