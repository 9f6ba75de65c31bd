// What rounds gave, written by the last kernel of a step to the host's memory and awaited there:
// the host sees the last result some microseconds before a stream counts as done.
#pragma once

#include <span>

#include "ops/cuda/accept.h"
#include "ops/cuda/device.h"

namespace tandem::gpu {

class RoundResults {
 public:
  explicit RoundResults(size_t most)
      : most_(most), memory_(most * sizeof(ops::cuda::RoundResult)) {}

  // Where the device writes them.
  ops::cuda::RoundResult* device() const { return memory_.as<ops::cuda::RoundResult>(); }

  // Before the step that writes the first `count` results is launched; none is still to come.
  void expect(size_t count);
  // Returns when all that are expected are there. What the device throws is thrown here.
  std::span<const ops::cuda::RoundResult> wait(const ops::cuda::Stream& stream) const;

 private:
  size_t most_;
  size_t expected_ = 0;
  ops::cuda::PinnedBuffer memory_;
};

}  // namespace tandem::gpu
