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

// What a segment leaves is FP16: half of the bytes between the two kernels, and a twelfth of the
// error of a BF16 result. Sums of 256 values of up to 255 are sure to fit; a head's, which have a
// norm, are at most sqrt(head_dim). E4M3 ones, up to 448, are left without v_scale and times this.
inline constexpr float kCodeSumScale = 1.0F / 16.0F;

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
  bool only_lists = false;   // list_attention()
  float score_scale = 1.0F;  // of scores over E4M3
  Divisor by_group = {};
  Divisor by_ring = {};
  Divisor by_block = {};
  Divisor by_segments = {};
  // What a segment leaves: [num_rows][num_heads][max_segments] of
  //   [head_dim] FP16, each 16 columns in the order 0, 1, 8, 9, 2, 3, 10, 11 .. of an E4M3 operand;
  //   over a BF16 cache 0, 8, 1, 9, 2, 10, 3, 11 ..
  uint16_t* sums = nullptr;
  float2* totals = nullptr;  // maximum, total
};

// e^(score - largest); 0 for what is hidden, also where everything is.
__device__ inline float weight_of(float score, float largest) {
  return ptx::exp2_approx((score - (largest == -INFINITY ? 0.0F : largest)) * kLog2E);
}

// The second kernel: adds up the segments of every row and head.
void combine_attention(const Stream& stream, const AttentionJob& job);

}  // namespace tandem::ops::cuda
