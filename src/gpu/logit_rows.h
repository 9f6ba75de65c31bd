// Rows of logits that the host chooses from. The device tells what mostly decides (row_facts.h);
// rows that this leaves undecided are copied, one by one.
#pragma once

#include <array>
#include <mutex>
#include <optional>
#include <vector>

#include "gpu/row_questions.h"
#include "ops/cuda/head.h"
#include "sampling/sampler.h"

namespace tandem::gpu {

class LogitRows {
 public:
  // whole_rows: as DeviceStepOptions.
  LogitRows(int max_passes, int max_sequences, int64_t vocab_size, bool whole_rows);
  ~LogitRows();
  LogitRows(const LogitRows&) = delete;
  LogitRows& operator=(const LogitRows&) = delete;

  RowQuestions& questions() { return questions_; }

  // Logits of so many passes are kept at once, for rows to be copied.
  static constexpr int kSlots = 2;
  // A row of a step: `row` of pass `pass`, whose logits lie in `slot`.
  struct Place {
    size_t pass = 0;
    int slot = 0;
    int64_t row = 0;
  };

  // From a head's sums to what is known of its rows. `asked`: what is asked beside their likeliest
  // tokens. [head.num_rows], on the device.
  const ops::cuda::RowFacts* find(const ops::cuda::Stream& stream, size_t pass, int slot,
                                  const ops::cuda::HeadLogits& head,
                                  const ops::cuda::RowFactsJob& asked);
  // And to where the host reads it. sequences, positions [head.num_rows].
  void record(const ops::cuda::Stream& stream, size_t pass, int slot,
              const ops::cuda::HeadLogits& head, const int32_t* sequences,
              const int32_t* positions);

  // Behind record(): marks the end of the slot's pass, and waits for it.
  void mark_end(const ops::cuda::Stream& stream, int slot) const;
  void wait_for_end(int slot) const;

  // Once the device is done with the pass; by several threads at once. `sequence`: of the batch.
  sampling::TokenChoice choose(const sampling::Sampler& sampler, const Place& place,
                               size_t sequence, int64_t position, sampling::TokenMask allowed);
  // `token` was the row's target.
  sampling::TokenScore score(const Place& place, int32_t token, int32_t num_top) const;

 private:
  const ops::cuda::RowFacts& facts_at(const Place& place) const;
  float* logits_at(const Place& place) const;
  std::span<const float> whole_row(const Place& place);
  // Where the facts leave it open. One thread at a time: what is fetched lies in one place.
  sampling::TokenChoice choose_from_logits(const sampling::Sampler& sampler, const Place& place,
                                           const sampling::KnownRow& known, int64_t position,
                                           sampling::TokenMask allowed);
  // The logits of the allowed tokens; none where they are many.
  std::optional<std::span<const sampling::Candidate>> few_allowed(const Place& place,
                                                                  sampling::TokenMask allowed);

  int64_t vocab_size_;
  bool whole_rows_;
  RowQuestions questions_;
  std::mutex fetches_;
  ops::cuda::Stream fetching_;  // beside the step's: passes may follow
  std::array<cudaEvent_t, kSlots> ends_{};
  ops::cuda::DeviceBuffer logits_;  // [kSlots, kPassRows, vocab_size] F32
  ops::cuda::DeviceBuffer scratch_;
  ops::cuda::DeviceBuffer facts_;  // [max_passes * kPassRows] RowFacts
  ops::cuda::PinnedBuffer host_facts_;
  ops::cuda::PinnedBuffer host_row_;  // [vocab_size]
  ops::cuda::PinnedBuffer few_ids_, few_logits_;
  std::vector<sampling::Candidate> few_;
};

}  // namespace tandem::gpu
