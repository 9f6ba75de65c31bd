// What the two kernels of attention share.
#pragma once

#include "ops/cuda/attention.cuh"
#include "ops/cuda/attention.h"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {

struct AttentionJob {
  Attention attention;
  Rows rows;
  QueryTiles tiles;
  int group;       // query heads of a KV head
  int most_rows;   // of a tile that a thread block takes together, at most
  int least_rows;  // splitting rows further saves no work
  int ring_size;   // places in shared memory for what is copied
  float2* totals;  // [num_rows][num_heads][max_segments]: maximum, total
};

// e^(score - largest); 0 for what is hidden, also where everything is.
__device__ inline float weight_of(float score, float largest) {
  return ptx::exp2_approx((score - (largest == -INFINITY ? 0.0F : largest)) * kLog2E);
}

// The second kernel: adds up the segments of every row and head.
void combine_attention(const Stream& stream, const AttentionJob& job);

}  // namespace tandem::ops::cuda
