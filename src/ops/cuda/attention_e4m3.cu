// Attention of few rows over a cache of E4M3, apart so that both formats compile at the same time.
#include "ops/cuda/attention_segments.cuh"

namespace tandem::ops::cuda::segment {

void launch_e4m3(const Stream& stream, const Job& job) {
  launch_all<true>(stream, job);
}

}  // namespace tandem::ops::cuda::segment
