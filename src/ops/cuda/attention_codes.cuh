// Attention of few rows (attention.cu) over keys and values of E4M3: the warps that compute take
// their part of a piece to registers as it is stored, widen it there to FP16, which holds each
// value, one instruction for two of them, and multiply from registers. Queries and weights are FP16
// beside it, which has three bits more than BF16.
#pragma once

#include <algorithm>

#include "ops/cuda/attention_ptx.cuh"
#include "ops/cuda/attention_ring.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

// Left sides of the products of four steps, 16 keys or columns each, in registers. A warp has eight
// steps in a piece of values, and for each 16 keys of a piece.
struct CodeProducts {
  static constexpr int kSteps = 4;
  uint4 left[kSteps];
  // Read anew by everyone: the compiler would keep the places of all products of an item otherwise.
  uint32_t lane = static_cast<uint32_t>(ptx::thread_now()) % 32;

  // 16 keys, from `keys` on in a piece, and its columns from step `first` on. A lane has columns 4t
  // to 4t + 3 of 16: query_at() says in which order queries lie beside them.
  __device__ void load_keys(uint32_t keys, int first) {
    uint4 codes[kSteps / 2];
#pragma unroll
    for (int i = 0; i < kSteps / 2; ++i) {
      const uint32_t chunk = static_cast<uint32_t>(first + i * 2) + lane / 16;
      codes[i] = ptx::load_four(keys + lane % 16 * 128 + (chunk ^ lane % 8) * 16);
    }
    begin();
#pragma unroll
    for (int i = 0; i < kSteps / 2; ++i) {
      set_keys(left[i * 2], codes[i].x, codes[i].y);
      set_keys(left[i * 2 + 1], codes[i].z, codes[i].w);
    }
    end();
  }
  // The warp's 16 value columns, 2g and 2g + 1 for each lane, of the keys from step `first` on.
  __device__ void load_columns(uint32_t piece, int first, const Lane& thread) {
    const auto chunk = static_cast<uint32_t>(thread.warpgroup * 4 + thread.warp);
    uint4 codes[kSteps / 2];
#pragma unroll
    for (int i = 0; i < kSteps / 2; ++i)
      codes[i] =
          ptx::load_four<true>(piece + (static_cast<uint32_t>(first + i * 2) * 16 + lane) * 128 +
                               (chunk ^ lane % 8) * 16);
    begin();
#pragma unroll
    for (int i = 0; i < kSteps / 2; ++i) {
      set_columns(left[i * 2], codes[i].x, codes[i].y);
      set_columns(left[i * 2 + 1], codes[i].z, codes[i].w);
    }
    end();
  }

 private:
  // Products read these registers until they are over. To have a second set of them gained nothing.
  __device__ void begin() {
    ptx::warpgroup_wait<0>();
    ptx::pin(left);
  }
  __device__ void end() {
    ptx::pin(left);
    ptx::warpgroup_fence();
  }
  __device__ static void set_keys(uint4& step, uint32_t upper, uint32_t lower) {
    const uint2 wide_upper = ptx::widen_neighbours(upper);
    const uint2 wide_lower = ptx::widen_neighbours(lower);
    step = {wide_upper.x, wide_lower.x, wide_upper.y, wide_lower.y};
  }
  __device__ static void set_columns(uint4& step, uint32_t first_keys, uint32_t last_keys) {
    const uint2 first = ptx::widen_alternate(first_keys);
    const uint2 last = ptx::widen_alternate(last_keys);
    step = {first.x, first.y, last.x, last.y};
  }
};

// The sums of a piece of values, 128 keys from `first_step` on, in chains of even and odd 16 keys.
template <typename P, int kPairs>
__device__ void add_piece(float (&sums)[2][kPairs / 2], int first_step, const Lane& lane,
                          const Ring& ring, uint32_t shared) {
  constexpr int kSteps = CodeProducts::kSteps;
  CodeProducts products;
#pragma unroll
  for (int step = 0; step < 8; step += kSteps) {
    products.load_columns(ring.address(), step, lane);
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
      ptx::wgmma_pairs_f16(sums[i % 2], products.left[i],
                           weights_of_step<P, kPairs>(shared, first_step + step + i),
                           first_step + step + i / 2);
    ptx::warpgroup_commit();
  }
}

// The scores of 64 keys for each warpgroup, or of 128 where a segment has 256, as score_at_once()
// and score_by_columns() have them.
template <typename P, int kPairs>
__device__ void score_codes(uint32_t all_queries, const Lane& lane, float k_scale, Ring& ring,
                            float (&scores)[P::kHalves][kPairs / 2]) {
  float sums[2][kPairs / 2] = {};  // of even and odd 16 columns, or of two times 64 keys
#pragma unroll
  for (auto& sum : sums) ptx::pin(sum);
  const auto leave_out = [&](int warpgroup) {  // the other one's keys
    if (P::kHalves == 1 || lane.warpgroup != warpgroup) return;
    ring.wait_full();
    ring.give_back();
    ring.advance();
  };
  constexpr int kSteps = CodeProducts::kSteps;
  CodeProducts products;
#pragma unroll 1
  for (int c = 0; c < P::kPieces; ++c) {
    leave_out(1);
    ring.wait_full();
#pragma unroll
    for (int tile = 0; tile < P::kHalves; ++tile) {
      const int first_key = (P::kHalves == 1 ? lane.warpgroup : tile) * 64 + lane.warp * 16;
#pragma unroll
      for (int step = 0; step < std::min(8, P::kColumns * 4); step += kSteps) {
        products.load_keys(ring.address() + static_cast<uint32_t>(first_key * 128), step);
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          const int column = c * 2 + (step + i) / 4;
          ptx::wgmma_pairs_f16(
              sums[P::kHalves == 1 ? i % 2 : tile], products.left[i],
              ptx::matrix_of(
                  all_queries + static_cast<uint32_t>(column * kPairs * 128 + (step + i) % 4 * 32),
                  1024),
              c + step + (P::kHalves == 1 ? i / 2 : i));
        }
        ptx::warpgroup_commit();
      }
    }
    ring.give_back();
    ring.advance();
    leave_out(0);
  }
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (auto& sum : sums) ptx::pin(sum);
  // Of keys as they are stored.
#pragma unroll
  for (int i = 0; i < kPairs / 2; ++i) {
    scores[0][i] = (P::kHalves == 1 ? sums[0][i] + sums[1][i] : sums[0][i]) * k_scale;
    if (P::kHalves > 1) scores[P::kHalves - 1][i] = sums[1][i] * k_scale;
  }
}

}  // namespace tandem::ops::cuda::segment
