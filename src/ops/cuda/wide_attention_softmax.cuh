// The softmax of attention of many rows (wide_attention.cu): scores become weights, a step after
// the other.
#pragma once

#include "ops/cuda/wide_attention_plan.cuh"

namespace tandem::ops::cuda::wide {

// A pair of this thread: fragment row g (half 0) or g + 8 of its warp's 16.
struct Pair {
  int row = -1;  // -1: none
  int head = 0;
  int first_key = 0;
  int last_key = -1;
};

__device__ inline Pair load_pair(const Job& job, const Block& block, int kv_head, int index) {
  Pair pair;
  if (index >= block.num_rows * job.group) return pair;
  pair.row = block.first_row + index / job.group;
  pair.head = kv_head * job.group + index % job.group;
  pair.last_key = block.first_position + index / job.group;
  pair.first_key = first_key_of(job.attention.window, pair.last_key);
  return pair;
}

// The softmax so far of a thread's two pairs: `largest` of the scores before their scale, totals
// are of this thread's keys.
struct Running {
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0F, 0.0F};
};

template <int kScores>
__device__ inline void hide(const Pair (&pairs)[2], int first_key, float (&scores)[kScores]) {
  const int own = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    const int key = own + i / 4 * 8 + i % 2;
    const Pair& pair = pairs[i / 2 % 2];
    if (key < pair.first_key || key > pair.last_key) scores[i] = -INFINITY;
  }
}

// Of the four lanes that have a pair's keys.
__device__ inline float quad_sum(float value) {
  value += __shfl_xor_sync(0xffffffffU, value, 1);
  return value + __shfl_xor_sync(0xffffffffU, value, 2);
}

// Of a thread's two pairs.
template <int kScores>
__device__ inline float2 largest_of(const float (&scores)[kScores]) {
  float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < kScores; i += 4)
      largest[half] = fmaxf(largest[half], fmaxf(scores[i + half * 2], scores[i + half * 2 + 1]));
    largest[half] = fmaxf(largest[half], __shfl_xor_sync(0xffffffffU, largest[half], 1));
    largest[half] = fmaxf(largest[half], __shfl_xor_sync(0xffffffffU, largest[half], 2));
  }
  return make_float2(largest[0], largest[1]);
}

// Scores, times `scale` / log2(e), become weights, in pairs of BF16: weights[4 k + ...] are the
// left side of the product with keys 16 k .. 16 k + 15. `found`: the largest scores of the step.
// Returns by how much what was summed before is to be scaled.
template <int kScores>
__device__ inline float2 weigh(const float (&scores)[kScores], const float2& found, float scale,
                               Running& running, uint32_t (&weights)[kScores / 2]) {
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float largest = fmaxf(half == 0 ? found.x : found.y, running.largest[half]);
    // Nothing seen yet: every weight is e^-inf.
    const float base = largest == -INFINITY ? 0.0F : largest * scale;
    factor[half] = largest == running.largest[half]
                       ? 1.0F
                       : ptx::exp2_approx(fmaf(running.largest[half], scale, -base));
    running.largest[half] = largest;
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < kScores / 4; ++i) {
      const uint32_t two =
          bf16x2(ptx::exp2_approx(fmaf(scores[i * 4 + half * 2], scale, -base)),
                 ptx::exp2_approx(fmaf(scores[i * 4 + half * 2 + 1], scale, -base)));
      weights[i / 2 * 4 + i % 2 * 2 + half] = two;
      total += low_bf16(two) + high_bf16(two);
    }
    running.total[half] = fmaf(running.total[half], factor[half], total);
  }
  return make_float2(factor[0], factor[1]);
}

// Whether warpgroups that have the same pairs score half of a step's keys each, and tell each
// other. Beside codes of E4M3 there is no room for it.
template <int kDim, Source kSource>
constexpr bool kScoresHalves = Plan<kDim>::kSplit && kSource != Source::kE4m3;

// Where they do.
struct Halves {
  uint32_t maxima;   // [warpgroup][pair]
  uint32_t weights;  // [2 steps][pair][128 bytes], chunks of 16 exchanged by pair
  int warpgroup;

  __device__ static uint32_t pair() { return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4; }
  __device__ uint32_t weights_of(int step) const { return weights + step % 2 * (kPairs * 128); }
  // What both say of the same pairs.
  __device__ float2 exchange(const float2& own) const {
    const uint32_t at = maxima + (warpgroup * kPairs + pair()) * 4;
    const uint32_t others = maxima + ((1 - warpgroup) * kPairs + pair()) * 4;
    if (threadIdx.x % 4 == 0) {
      ptx::store_shared(at, __float_as_uint(own.x));
      ptx::store_shared(at + 32, __float_as_uint(own.y));
    }
    ptx::named_barrier(1, kComputing);
    return make_float2(load(others), load(others + 32));
  }
  // Joins the weights of both, for products.
  __device__ void join(const uint32_t (&own)[8], int step) const {
    const uint32_t t = threadIdx.x % 4;
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t row = pair() + half * 8;
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i)
        ptx::store_shared(weights_of(step) + row * 128 +
                              ((static_cast<uint32_t>(warpgroup) * 4 + i) ^ row % 8) * 16 + t * 4,
                          own[i / 2 * 4 + i % 2 * 2 + half]);
    }
    ptx::fence_async_shared();
    ptx::named_barrier(1, kComputing);
  }

 private:
  __device__ static float load(uint32_t address) {
    float value;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
    return value;
  }
};

}  // namespace tandem::ops::cuda::wide
