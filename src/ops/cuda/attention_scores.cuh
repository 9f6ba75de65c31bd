// The first half of an item of attention (attention_segments.cuh): the scores of its keys, and what
// they weigh.
#pragma once

#include "ops/cuda/attention_codes.cuh"
#include "ops/cuda/attention_job.cuh"
#include "ops/cuda/attention_ptx.cuh"
#include "ops/cuda/attention_ring.cuh"
#include "ops/cuda/wide_operand.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

// The scores of 64 keys for each warpgroup, all columns at once, every second 16 of them added up
// by themselves: two short chains of products instead of a long one. Gives the pieces back.
template <typename P, int kPairs, bool kRolled>
__device__ void score_at_once(uint32_t all_queries, const Lane& lane, Ring& ring,
                              float (&scores)[1][kPairs / 2]) {
  float sums[2][kPairs / 2] = {};
#pragma unroll
  for (auto& sum : sums) ptx::pin(sum);
  Ring next = ring;
#pragma unroll
  for (int c = 0; c < P::kColumns; ++c, next.advance()) next.wait_full();
  ptx::fence_async_shared();
  ptx::warpgroup_fence();
  next = ring;
  const auto multiply = [&](int c) {
    const uint32_t queries = all_queries + static_cast<uint32_t>(c * kPairs * 128);
    const uint32_t keys = next.address() + static_cast<uint32_t>(lane.warpgroup * 64 * 128);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      ptx::wgmma_pairs<0>(sums[i % 2], ptx::matrix_of(keys + static_cast<uint32_t>(i * 32), 1024),
                          ptx::matrix_of(queries + static_cast<uint32_t>(i * 32), 1024), c + i / 2);
    next.advance();
  };
  if constexpr (kRolled) {
#pragma unroll 1
    for (int c = 0; c < P::kColumns; ++c) {
      ptx::warpgroup_fence();
      multiply(c);
    }
  } else {
#pragma unroll
    for (int c = 0; c < P::kColumns; ++c) multiply(c);
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (auto& sum : sums) ptx::pin(sum);
#pragma unroll
  for (int c = 0; c < P::kColumns; ++c, ring.advance()) ring.give_back();
#pragma unroll
  for (int i = 0; i < kPairs / 2; ++i) scores[0][i] = sums[0][i] + sums[1][i];
}

// The scores of 128 keys for each warpgroup, 64 columns after 64.
template <typename P, int kPairs>
__device__ void score_by_columns(uint32_t all_queries, const Lane& lane, Ring& ring,
                                 float (&scores)[2][kPairs / 2]) {
#pragma unroll
  for (auto& tile : scores) ptx::pin(tile);
  Ring done = ring;
#pragma unroll 1
  for (int c = 0; c < P::kColumns; ++c) {
    const uint32_t queries = all_queries + static_cast<uint32_t>(c * kPairs * 128);
#pragma unroll
    for (int half = 0; half < 2; ++half, ring.advance()) {
      ring.wait_full();
      if (half != lane.warpgroup) {
        ring.give_back();
        continue;
      }
      ptx::fence_async_shared();
      ptx::warpgroup_fence();
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
          ptx::wgmma_pairs<0>(
              scores[tile],
              ptx::matrix_of(ring.address() + static_cast<uint32_t>(tile * 64 * 128 + i * 32),
                             1024),
              ptx::matrix_of(queries + static_cast<uint32_t>(i * 32), 1024), c + i);
      ptx::warpgroup_commit();
      if (c > 0) {
        ptx::warpgroup_wait<1>();
        done.give_back();
      }
      done = ring;
    }
  }
  ptx::warpgroup_wait<0>();
  done.give_back();
#pragma unroll
  for (auto& tile : scores) ptx::pin(tile);
}

// Hides what a pair does not see.
template <int kTiles, int kPairs>
__device__ void hide(const PairInfo* pairs, const Lane& lane, int first_key,
                     float (&scores)[kTiles][kPairs / 2]) {
#pragma unroll
  for (int i = 0; i < kPairs / 2; ++i) {
    const PairInfo& pair = pairs[i / 4 * 8 + lane.t * 2 + i % 2];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int key = first_key + tile * 64 + lane.warp * 16 + lane.g + i / 2 % 2 * 8;
      if (key < pair.first_key || key > pair.last_key) scores[tile][i] = -INFINITY;
    }
  }
}

// The largest score of every pair in this warp, into `maxima`.
template <int kTiles, int kPairs>
__device__ void find_maxima(const Lane& lane, const float (&scores)[kTiles][kPairs / 2],
                            int* maxima) {
#pragma unroll
  for (int j = 0; j < kPairs / 8; ++j) {
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int c = 0; c < 4; ++c) largest[c % 2] = fmaxf(largest[c % 2], scores[tile][j * 4 + c]);
#pragma unroll
    for (int mask = 4; mask <= 16; mask *= 2) {
      largest[0] = fmaxf(largest[0], __shfl_xor_sync(0xffffffffU, largest[0], mask));
      largest[1] = fmaxf(largest[1], __shfl_xor_sync(0xffffffffU, largest[1], mask));
    }
    if (lane.g != j % 8) continue;
    atomicMax(&maxima[j * 8 + lane.t * 2], ordered_bits(largest[0]));
    atomicMax(&maxima[j * 8 + lane.t * 2 + 1], ordered_bits(largest[1]));
  }
}

// Two values of the right side of a product.
template <typename P>
__device__ inline uint32_t packed(float low, float high) {
  if constexpr (P::kE4m3) return ptx::f16x2(low, high);
  return bf16x2(low, high);
}

// Scores become weights, e^(score - maximum): the right side of the second product.
template <typename P, int kPairs>
__device__ void weigh(const Lane& lane, const float (&scores)[P::kHalves][kPairs / 2],
                      const int* maxima, uint32_t shared) {
  constexpr int kGroups = kPairs < 16 ? 1 : 2;  // of eight pairs, stored together
  const int thread = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < kPairs / 8; j += kGroups) {
    float largest[kGroups][2];
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      if (j + n == kPairs / 8) continue;
      const int2 bits = *reinterpret_cast<const int2*>(&maxima[(j + n) * 8 + lane.t * 2]);
      largest[n][0] = from_ordered(bits.x);
      largest[n][1] = from_ordered(bits.y);
    }
#pragma unroll
    for (int tile = 0; tile < P::kHalves; ++tile) {
      uint32_t weights[kGroups][2] = {};  // of eight pairs and eight keys
#pragma unroll
      for (int n = 0; n < kGroups; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (j + n == kPairs / 8) continue;
          const float* const own = &scores[tile][(j + n) * 4 + half * 2];
          weights[n][half] =
              packed<P>(weight_of(own[0], largest[n][0]), weight_of(own[1], largest[n][1]));
        }
      const int block = lane.warpgroup * P::kHalves + tile;  // of 64 keys
      const int pair = (j + (kGroups > 1 ? thread / 16 : 0)) * 8 + thread % 8;
      const int chunk = lane.warp * 2 + thread / 8 % 2;
      const uint32_t target =
          shared + P::kWeightAt +
          static_cast<uint32_t>((block * pairs_with_weights(kPairs) + pair) * 128 +
                                (chunk ^ pair % 8) * 16);
      if constexpr (kGroups > 1)
        ptx::store_transposed(target, weights[0][0], weights[0][1], weights[1][0], weights[1][1]);
      else
        ptx::store_transposed(target, weights[0][0], weights[0][1]);
    }
  }
  ptx::fence_async_shared();
}

}  // namespace tandem::ops::cuda::segment
