// Attention of few rows (attention.cu) over keys and values of E4M3, which are multiplied as they
// are. What a product takes beside them, queries and weights, is two E4M3 values each: together
// they have the bits of a BF16 (two_codes()), and there are columns to spare. Keys lie in the ring
// as products read them; of values a lane takes its part to registers, since there only what is
// summed over may be contiguous.
#pragma once

#include "ops/cuda/attention_ptx.cuh"
#include "ops/cuda/attention_ring.cuh"
#include "ops/cuda/wide_operand.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

// Weights, 0 to 1, are stored times this.
inline constexpr float kWeightScale = 256.0F;

// Two columns of a query, BF16.
__device__ inline ptx::TwoCodes query_codes(uint32_t bf16, float scale) {
  return ptx::two_codes(low_bf16(bf16) * scale, high_bf16(bf16) * scale);
}

// What sums over high and over low codes come to; those of BF16 as they are.
template <typename P, int kSums, int kValues>
__device__ void set_joined(const float (&sums)[kSums], float scale, float (&values)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
    if constexpr (P::kE4m3) {
      const int high = i / 4 * 8 + i % 4;
      values[i] = (sums[high] + sums[high + 4] * ptx::kLowCode) * scale;
    } else {
      values[i] = sums[i];
    }
  }
}

// The left sides of the products of a piece of values, 32 keys each: the warp's 16 columns, 2g and
// 2g + 1 for each lane, and of every 16 keys t * 2, t * 2 + 8, t * 2 + 1 and t * 2 + 9.
struct CodeProducts {
  uint4 left[4];
  // Read anew by everyone: the compiler would keep the places of all products of an item otherwise.
  uint32_t lane = static_cast<uint32_t>(ptx::thread_now()) % 32;

  __device__ void load_values(uint32_t piece, const Lane& thread) {
    const auto chunk = static_cast<uint32_t>(thread.warpgroup * 4 + thread.warp);
    uint4 codes[4];  // two columns of two keys in each register
#pragma unroll
    for (int i = 0; i < 4; ++i)
      codes[i] = ptx::load_four<true>(piece + (static_cast<uint32_t>(i * 32) + lane) * 128 +
                                      (chunk ^ lane % 8) * 16);
    // Products read these registers until they are over.
    ptx::warpgroup_wait<0>();
    ptx::pin(left);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      left[i] = {
          __byte_perm(codes[i].x, codes[i].y, 0x6240), __byte_perm(codes[i].x, codes[i].y, 0x7351),
          __byte_perm(codes[i].z, codes[i].w, 0x6240), __byte_perm(codes[i].z, codes[i].w, 0x7351)};
    ptx::pin(left);
    ptx::warpgroup_fence();
  }
};

// The sums of a piece of values, 128 keys from step `first_step` on.
template <typename P, int kPairs>
__device__ void add_piece(float (&sums)[kPairs], int first_step, const Lane& lane, const Ring& ring,
                          uint32_t shared) {
  CodeProducts products;
  products.load_values(ring.address(), lane);
#pragma unroll
  for (int i = 0; i < 4; ++i)
    ptx::wgmma_codes(sums, products.left[i], weights_of_step<P, kPairs>(shared, first_step + i),
                     first_step + i);
  ptx::warpgroup_commit();
}

// The sums of all weights, in every row.
template <typename P, int kPairs>
__device__ void multiply_code_ones(uint32_t shared, float (&sums)[kPairs]) {
  constexpr uint32_t kOnes = 0x38383838;
#pragma unroll
  for (int step = 0; step < P::kKeys / 32; ++step)
    ptx::wgmma_codes(sums, uint4{kOnes, kOnes, kOnes, kOnes},
                     weights_of_step<P, kPairs>(shared, step), step);
}

}  // namespace tandem::ops::cuda::segment
