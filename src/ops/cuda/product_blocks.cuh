// Blocks of packed weights times rows in shared memory, for every product of few rows: one order of
// sums, and one place where E4M3 sums go to FP32 registers.
#pragma once

#include <type_traits>

#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/product_shape.cuh"

namespace tandem::ops::cuda::few {

// visit(count) with a constant: 1 to kMost, 2 or 4.
template <int kMost, typename Visit>
__device__ inline void with_count(int count, const Visit& visit) {
  if (count == kMost) {
    visit(std::integral_constant<int, kMost>());
  } else if (kMost == 2 || count == 1) {
    visit(std::integral_constant<int, 1>());
  } else if constexpr (kMost > 2) {
    if (count == 2)
      visit(std::integral_constant<int, 2>());
    else
      visit(std::integral_constant<int, 3>());
  }
}

// Where a lane's bytes begin in a block at `base`.
template <typename S>
__device__ inline uint32_t lane_bytes(uint32_t base = 0) {
  return base + threadIdx.x / 32 * (S::kBlockBytes / kWarps) + threadIdx.x % 32 * 16;
}

// A lane's 32 inputs of E4M3, or integers, as the registers of two products of BF16, 16 inputs
// each.
template <bool kIntegers>
__device__ inline void widen(const uint4& codes, uint4& first, uint4& second) {
  const auto four = [](uint32_t bytes) {
    return kIntegers ? ptx::widen_integers(bytes) : ptx::widen_e4m3(bytes);
  };
  const uint2 x = four(codes.x);
  const uint2 y = four(codes.y);
  const uint2 z = four(codes.z);
  const uint2 w = four(codes.w);
  first = {x.x, y.x, x.y, y.y};
  second = {z.x, w.x, z.y, w.y};
}

// Consecutive blocks of a stage, 128 inputs at most of E4M3, as a lane multiplies them.
template <typename S, int kCount>
struct Blocks {
  static constexpr int kHalves = S::kFp8 ? 1 : 2;  // products of a block
  uint4 a[kCount * kHalves];
  uint64_t rows;  // descriptor

  __device__ Blocks() : a(), rows(0) {}
  __device__ Blocks(uint32_t own_weights, uint32_t rows_address)
      : rows(ptx::rows_of(rows_address, S::kTileBytes)) {
    if constexpr (S::kWidened) {
      uint4 codes[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        codes[i] = ptx::load_shared(own_weights + i * S::kBlockBytes);
#pragma unroll
      for (int i = 0; i < kCount; ++i) widen<S::kIntegers>(codes[i], a[i * 2], a[i * 2 + 1]);
      ptx::pin(a);
    } else {
#pragma unroll
      for (int i = 0; i < kCount * kHalves; ++i)
        a[i] = ptx::load_shared(own_weights + i / kHalves * S::kBlockBytes + i % kHalves * 512);
    }
  }
  __device__ uint64_t rows_at(int byte) const { return rows + static_cast<uint32_t>(byte >> 4); }
  // Starts d = the products, or d += them.
  template <int kRegisters>
  __device__ void multiply_e4m3(float (&d)[kRegisters], int i, int first_tile) const {
    ptx::wgmma_e4m3(d, a[i], rows_at(first_tile * S::kTileBytes + i * S::kRowBytes), i);
  }
  __device__ void multiply_bf16(float (&d)[S::kTiles * 4], int i) const {
    ptx::wgmma_bf16_inputs(d, a[i], rows_at(i / 2 * S::kRowBytes + i % 2 * 256));
  }
};

// E4M3 products of a part of the rows.
template <typename S>
using PartProducts = float[S::kPartTiles * 4];

// Behind pin() and warpgroup_fence().
template <typename S, int kCount>
__device__ inline void start_part(PartProducts<S>& products, const Blocks<S, kCount>& blocks,
                                  int part) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) blocks.multiply_e4m3(products, i, part * S::kPartTiles);
  ptx::warpgroup_commit();
}

template <typename S>
__device__ inline void add_part(float (&sums)[S::kTiles * 4], PartProducts<S>& products, int part) {
  ptx::pin(products);
#pragma unroll
  for (int i = 0; i < S::kPartTiles * 4; ++i) sums[part * S::kPartTiles * 4 + i] += products[i];
}

template <typename S, int kCount>
__device__ inline void add_blocks(float (&sums)[S::kTiles * 4], const Blocks<S, kCount>& blocks) {
  if constexpr (S::kFp8) {
    // One part is added up while the products of another run.
    constexpr int kTogether = S::kParts < 2 ? S::kParts : 2;
    PartProducts<S> products[kTogether];
    for (auto& part : products) ptx::pin(part);
    ptx::warpgroup_fence();
#pragma unroll
    for (int part = 0; part < kTogether; ++part) start_part<S>(products[part], blocks, part);
#pragma unroll
    for (int part = 0; part < S::kParts; ++part) {
      if (part + 1 < S::kParts)
        ptx::warpgroup_wait<1>();
      else
        ptx::warpgroup_wait<0>();
      add_part<S>(sums, products[part % kTogether], part);
      if (part + kTogether < S::kParts) {
        ptx::pin(products[part % kTogether]);
        ptx::warpgroup_fence();
        start_part<S>(products[part % kTogether], blocks, part + kTogether);
      }
    }
  } else {
    ptx::pin(sums);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kCount * 2; ++i) blocks.multiply_bf16(sums, i);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
    ptx::pin(sums);
  }
}

// Two stages at once, with the same sums as one after the other.
template <typename S>
__device__ inline void add_two(float (&sums)[S::kTiles * 4],
                               const Blocks<S, S::kStageBlocks>& first,
                               const Blocks<S, S::kStageBlocks>& second) {
  if constexpr (S::kFp8) {
    float stage[2][S::kTiles * 4];
    for (auto& part : stage) ptx::pin(part);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < S::kStageBlocks; ++i) {
      first.multiply_e4m3(stage[0], i, 0);
      second.multiply_e4m3(stage[1], i, 0);
    }
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
#pragma unroll
    for (auto& part : stage) {
      ptx::pin(part);
#pragma unroll
      for (int i = 0; i < S::kTiles * 4; ++i) sums[i] += part[i];
    }
  } else {
    ptx::pin(sums);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < S::kStageBlocks * 2; ++i) first.multiply_bf16(sums, i);
#pragma unroll
    for (int i = 0; i < S::kStageBlocks * 2; ++i) second.multiply_bf16(sums, i);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
    ptx::pin(sums);
  }
}

}  // namespace tandem::ops::cuda::few
