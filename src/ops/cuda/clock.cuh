// The device's clock, from within a kernel.
#pragma once

#include <cstdint>

namespace tandem::ops::cuda {

__device__ inline uint64_t nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
  return now;
}

}  // namespace tandem::ops::cuda
