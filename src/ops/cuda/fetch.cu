#include "ops/cuda/fetch.h"

#include <algorithm>

#include "ops/cuda/clock.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kThreads = 512;
constexpr size_t kMostBlocks = 32;

// Never from a cache: the host wrote since the last step.
__global__ void __launch_bounds__(kThreads)
    fetch_kernel(const uint4* from, uint4* to, int count, uint64_t* fetched) {
  const int stride = static_cast<int>(gridDim.x) * kThreads;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < count;
       i += stride)
    to[i] = __ldcv(from + i);
  if (blockIdx.x != 0 || fetched == nullptr) return;
  __syncthreads();
  if (threadIdx.x == 0) *fetched = nanoseconds();
}

}  // namespace

void fetch(const Stream& stream, const void* host, void* device, size_t bytes, uint64_t* fetched) {
  TANDEM_GPU_CHECK(bytes > 0 && bytes % sizeof(uint4) == 0);
  const size_t count = bytes / sizeof(uint4);
  const size_t blocks = std::min((count + kThreads - 1) / kThreads, kMostBlocks);
  launch({stream.handle, false}, fetch_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
         0, static_cast<const uint4*>(host), static_cast<uint4*>(device), static_cast<int>(count),
         fetched);
  stream.next_waits = true;
}

}  // namespace tandem::ops::cuda
