#include "bench/gpu/read_bandwidth.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "ops/cuda/device.h"

namespace tandem::bench {
namespace {

constexpr int kThreads = 1024;

// Sums words so that the loads are needed; nothing is written unless the sum is one number.
__global__ void __launch_bounds__(kThreads)
    read_kernel(const uint4* data, int64_t count, uint32_t* sink) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  uint32_t sum = 0;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    const uint4 a = __ldcs(data + i);
    const uint4 b = __ldcs(data + i + stride);
    const uint4 c = __ldcs(data + i + 2 * stride);
    const uint4 d = __ldcs(data + i + 3 * stride);
    sum += (a.x ^ b.x ^ c.x ^ d.x) + (a.y ^ b.y ^ c.y ^ d.y) + (a.z ^ b.z ^ c.z ^ d.z) +
           (a.w ^ b.w ^ c.w ^ d.w);
  }
  for (; i < count; i += stride) sum += data[i].x;
  if (sum == 0x12345678U) *sink = sum;
}

}  // namespace

double measure_read_bandwidth(int num_multiprocessors) {
  constexpr int64_t kBytes = int64_t{4} << 30;
  const ops::cuda::DeviceBuffer data(kBytes);
  const ops::cuda::DeviceBuffer sink(4);
  TANDEM_CUDA_CHECK(cudaMemset(data.data(), 0x5a, kBytes));
  cudaEvent_t begin;
  cudaEvent_t end;
  TANDEM_CUDA_CHECK(cudaEventCreate(&begin));
  TANDEM_CUDA_CHECK(cudaEventCreate(&end));
  double best = 0;
  for (const int per_multiprocessor : {2, 8, 16}) {
    for (int round = 0; round < 4; ++round) {
      TANDEM_CUDA_CHECK(cudaEventRecord(begin));
      read_kernel<<<static_cast<unsigned>(num_multiprocessors * per_multiprocessor), kThreads>>>(
          data.as<uint4>(), kBytes / 16, sink.as<uint32_t>());
      TANDEM_CUDA_CHECK(cudaEventRecord(end));
      TANDEM_CUDA_CHECK(cudaEventSynchronize(end));
      float milliseconds = 0;
      TANDEM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
      best =
          std::max(best, static_cast<double>(kBytes) / (1e-3 * static_cast<double>(milliseconds)));
    }
  }
  TANDEM_CUDA_CHECK(cudaEventDestroy(begin));
  TANDEM_CUDA_CHECK(cudaEventDestroy(end));
  return best;
}

}  // namespace tandem::bench
