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

// Starts the product of 64 keys, 32 bytes of each, with the queries.
template <typename P, int kSums>
__device__ void multiply_keys(float (&sums)[kSums], uint32_t keys, uint32_t queries, int add) {
  if constexpr (P::kE4m3)
    ptx::wgmma_codes(sums, ptx::matrix_of(keys, 1024), ptx::matrix_of(queries, 1024), add);
  else
    ptx::wgmma_pairs<0>(sums, ptx::matrix_of(keys, 1024), ptx::matrix_of(queries, 1024), add);
}

// The scores of 64 keys for each warpgroup, all columns at once, every second 32 bytes of them
// added up by themselves: two short chains of products instead of a long one. Gives the pieces
// back.
template <typename P, int kPairs, bool kRolled>
__device__ void score_at_once(const Job& job, uint32_t all_queries, const Lane& lane, Ring& ring,
                              float (&scores)[1][kPairs / 2]) {
  constexpr int kSums = product_columns(kPairs, P::kE4m3) / 2;
  float sums[2][kSums] = {};
#pragma unroll
  for (auto& sum : sums) ptx::pin(sum);
  Ring next = ring;
#pragma unroll
  for (int c = 0; c < P::kPieces; ++c, next.advance()) next.wait_full();
  ptx::fence_async_shared();
  ptx::warpgroup_fence();
  next = ring;
  const auto multiply = [&](int c) {
    const uint32_t queries = all_queries + static_cast<uint32_t>(c * kSums * 2 * 128);
    const uint32_t keys = next.address() + static_cast<uint32_t>(lane.warpgroup * 64 * 128);
#pragma unroll
    for (int i = 0; i < P::kPieceSteps; ++i)
      multiply_keys<P>(sums[i % 2], keys + static_cast<uint32_t>(i * 32),
                       queries + static_cast<uint32_t>(i * 32), c + i / 2);
    next.advance();
  };
  if constexpr (kRolled) {
#pragma unroll 1
    for (int c = 0; c < P::kPieces; ++c) {
      ptx::warpgroup_fence();
      multiply(c);
    }
  } else {
#pragma unroll
    for (int c = 0; c < P::kPieces; ++c) multiply(c);
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (auto& sum : sums) ptx::pin(sum);
#pragma unroll
  for (int c = 0; c < P::kPieces; ++c, ring.advance()) ring.give_back();
#pragma unroll
  for (int i = 0; i < kSums; ++i) sums[0][i] = sums[0][i] + sums[1][i];
  set_joined<P>(sums[0], job.score_scale, scores[0]);
}

// The scores of 128 keys for each warpgroup, a piece's columns after the other's.
template <typename P, int kPairs>
__device__ void score_by_columns(const Job& job, uint32_t all_queries, const Lane& lane, Ring& ring,
                                 float (&scores)[2][kPairs / 2]) {
  constexpr int kSums = product_columns(kPairs, P::kE4m3) / 2;
  float sums[2][kSums] = {};
#pragma unroll
  for (auto& tile : sums) ptx::pin(tile);
  Ring done = ring;
#pragma unroll 1
  for (int c = 0; c < P::kPieces; ++c) {
    const uint32_t queries = all_queries + static_cast<uint32_t>(c * kSums * 2 * 128);
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
          multiply_keys<P>(sums[tile],
                           ring.address() + static_cast<uint32_t>(tile * 64 * 128 + i * 32),
                           queries + static_cast<uint32_t>(i * 32), c + i);
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
  for (auto& tile : sums) ptx::pin(tile);
#pragma unroll
  for (int tile = 0; tile < 2; ++tile) set_joined<P>(sums[tile], job.score_scale, scores[tile]);
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
              bf16x2(weight_of(own[0], largest[n][0]), weight_of(own[1], largest[n][1]));
        }
      const int block = lane.warpgroup * P::kHalves + tile;  // of 64 keys
      const int pair = (j + (kGroups > 1 ? thread / 16 : 0)) * 8 + thread % 8;
      const int chunk = lane.warp * 2 + thread / 8 % 2;
      const uint32_t target =
          shared + P::kWeightAt +
          static_cast<uint32_t>((block * pairs_with_weights(kPairs, false) + pair) * 128 +
                                (chunk ^ pair % 8) * 16);
      if constexpr (kGroups > 1)
        ptx::store_transposed(target, weights[0][0], weights[0][1], weights[1][0], weights[1][1]);
      else
        ptx::store_transposed(target, weights[0][0], weights[0][1]);
    }
  }
  ptx::fence_async_shared();
}

// The same as codes: keys g and g + 8 of 16 beside each other, as load_values() has them.
template <typename P, int kPairs>
__device__ void weigh_codes(const Lane& lane, const float (&scores)[P::kHalves][kPairs / 2],
                            const int* maxima, uint32_t shared) {
  const int thread = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < kPairs / 8; ++j) {
    const int2 bits = *reinterpret_cast<const int2*>(&maxima[j * 8 + lane.t * 2]);
    const float largest[2] = {from_ordered(bits.x), from_ordered(bits.y)};
#pragma unroll
    for (int tile = 0; tile < P::kHalves; ++tile) {
      ptx::TwoCodes codes[2];
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const float* const own = &scores[tile][j * 4 + pair];
        codes[pair] = ptx::two_codes(weight_of(own[0], largest[pair]) * kWeightScale,
                                     weight_of(own[2], largest[pair]) * kWeightScale);
      }
      const int block = lane.warpgroup * P::kHalves + tile;  // of 64 keys
      const int row = j * 16 + thread % 16;                  // eight high ones, then the low ones
      const int chunk = block % 2 * 4 + lane.warp;
      const uint32_t target =
          shared + P::kWeightAt +
          static_cast<uint32_t>((block / 2 * kPairs * 2 + row) * 128 + (chunk ^ thread % 8) * 16);
      ptx::store_transposed(target, codes[0].high | codes[1].high << 16,
                            codes[0].low | codes[1].low << 16);
    }
  }
  ptx::fence_async_shared();
}

}  // namespace tandem::ops::cuda::segment
