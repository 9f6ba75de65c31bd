// What rounds gave, written by the last kernel of a step to the host's memory and awaited there:
// the host sees the last result some microseconds before a stream counts as done.
#pragma once

#include <chrono>
#include <span>

#include "ops/cuda/accept.h"
#include "ops/cuda/device.h"

namespace tandem::gpu {

class RoundResults {
 public:
  // Longer steps than `patience` are waited for by CUDA, which tells of errors too.
  RoundResults(size_t most, std::chrono::milliseconds patience)
      : most_(most), patience_(patience), memory_(most * sizeof(ops::cuda::RoundResult)) {}

  // Where the device writes them.
  ops::cuda::RoundResult* device() const { return memory_.as<ops::cuda::RoundResult>(); }

  // Before the step that writes the first `count` results is launched; none is still to come.
  void expect(size_t count);
  // Returns when all that are expected are there. What the device throws is thrown here.
  std::span<const ops::cuda::RoundResult> wait(const ops::cuda::Stream& stream) const;

 private:
  size_t most_;
  std::chrono::milliseconds patience_;
  size_t expected_ = 0;
  ops::cuda::PinnedBuffer memory_;
};

}  // namespace tandem::gpu
