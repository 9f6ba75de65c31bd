// What the two kernels of attention share.
#pragma once

#include "ops/cuda/attention.cuh"
#include "ops/cuda/attention.h"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {

// Divides integers from 0 to 2^32 - 1 without a division, which takes a kernel's first warps long.
struct Divisor {
  unsigned value = 1;
  unsigned inverse = 0xffffffffU;
  Divisor() = default;
  explicit Divisor(int divisor)
      : value(divisor > 0 ? static_cast<unsigned>(divisor) : 1U), inverse(0xffffffffU / value) {}
  __device__ unsigned quotient(unsigned x) const {
    const unsigned low = __umulhi(x, inverse);  // this, or one less than the quotient
    return x - low * value >= value ? low + 1 : low;
  }
};

struct AttentionJob {
  Attention attention;
  Rows rows;
  QueryTiles tiles;
  int group = 1;  // query heads that a thread block takes together: of a KV head, or half of them
  int num_groups = 1;
  int group_shift = 0;       // group i belongs to KV head i >> group_shift
  int most_rows = 1;         // of a tile that a thread block takes together, at most
  int least_rows = 1;        // splitting rows further saves no work
  int ring_size = 0;         // places in shared memory for what is copied
  bool draws = false;        // thread blocks draw the last items of a long list
  float score_scale = 1.0F;  // of scores over E4M3
  Divisor by_group = {};
  Divisor by_ring = {};
  Divisor by_block = {};
  Divisor by_segments = {};
  float2* totals = nullptr;  // [num_rows][num_heads][max_segments]: maximum, total
};

// e^(score - largest); 0 for what is hidden, also where everything is.
__device__ inline float weight_of(float score, float largest) {
  return ptx::exp2_approx((score - (largest == -INFINITY ? 0.0F : largest)) * kLog2E);
}

// The second kernel: adds up the segments of every row and head.
void combine_attention(const Stream& stream, const AttentionJob& job);

}  // namespace tandem::ops::cuda
