// What the products of few rows (row_product.cu, head_product.cu) share: the norm of a row made by
// every thread block for itself, and blocks of weights times eight rows in shared memory.
#pragma once

#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/row_math.cuh"
#include "ops/cuda/row_product.h"
#include "ops/cuda/wide_operand.cuh"

namespace tandem::ops::cuda {

inline constexpr int kFewWarps = 8;  // two warpgroups that multiply, 64 features each
inline constexpr int kFewThreads = kFewWarps * 32;
static_assert(kMaxNormedHidden == 4 * kFewThreads);

// Bytes of weights and of eight rows in a block of 32 inputs.
template <bool kFp8>
struct BlockBytes {
  static constexpr int kWeights = kFp8 ? 4096 : 8192;
  static constexpr int kRows = kFp8 ? 256 : 512;
  // E4M3 sums go to FP32 registers at multiples of this many blocks in a set.
  static constexpr int kTogether = kFp8 ? 4 : 2;
};

// What threads of a norm hold before they wait for the sums.
struct NormConstants {
  uint2 post_weight = {};
  uint2 weight = {};
  int pieces = 0;
};

__device__ inline NormConstants norm_constants(const NormedRows& source) {
  const int column = static_cast<int>(threadIdx.x) * 4;
  NormConstants constants;
  if (column >= source.hidden) return constants;
  constants.weight = load_bits(source.weight + column);
  if (source.post_weight != nullptr) constants.post_weight = load_bits(source.post_weight + column);
  constants.pieces = source.sums.num_pieces(column / kSetColumns);
  return constants;
}

// The sum over the row, with the bits of row_ops.cu.
__device__ inline float add_up_row(float value, float* parts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  value = warp_sum(value);
  if (lane == 0) parts[threadIdx.x / 32] = value;
  ptx::named_barrier(1, kFewThreads);
  return warp_sum(lane < kFewWarps ? parts[lane] : 0.0F);
}

// Leaves the normed rows in `rows`, an operand of one tile in shared memory; the first kFewThreads
// threads call it, and see what is left after a barrier of theirs. `parts`: [2][kFewWarps].
__device__ inline void make_normed_rows(const NormedRows& source, const NormConstants& constants,
                                        int num_rows, void* rows, float* parts) {
  const int hidden = source.hidden;
  const int column = static_cast<int>(threadIdx.x) * 4;
  const bool inside = column < hidden;
  const auto inverse_rms = [&](const Four& x, float eps, float* sum_parts) {
    float squares = 0.0F;
#pragma unroll
    for (int j = 0; j < 4; ++j) squares += x.v[j] * x.v[j];
    const float mean = add_up_row(squares, sum_parts) / static_cast<float>(hidden);
    return 1.0F / sqrtf(mean + eps);
  };
  const Operand operand{rows, 1, source.input_scale};
  for (int row = 0; row < num_rows; ++row) {
    const int64_t place = static_cast<int64_t>(row) * hidden + column;
    Four x;
    if (inside && source.post_weight != nullptr) x = unpack(load_bits(source.x + place));
    Four y;
    if (inside) y = scaled(load_sum4(source.sums, row, column, constants.pieces), source.scale);
    if (source.post_weight != nullptr) {
      const float inverse = inverse_rms(y, source.eps, parts);
      x = joined(x, normalized(y, inverse, constants.post_weight), source.layer_scalar);
    } else {
      x = y;
    }
    if (inside && source.new_x != nullptr && blockIdx.x == 0) store_bits(source.new_x + place, x);
    const Four n =
        normalized(x, inverse_rms(x, source.next_eps, parts + kFewWarps), constants.weight);
    if (!inside) continue;
    store_operand(operand, row, column, n.v[0], n.v[1]);
    store_operand(operand, row, column + 2, n.v[2], n.v[3]);
  }
}

// What threads wrote to shared memory is there for the tensor cores after a barrier.
__device__ inline void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// sums += kCount blocks of weights (this lane's address) times the rows, with the bits of
// product(). E4M3: kTogether blocks at a time, or all kCount where there are fewer, go to FP32.
template <bool kFp8, int kCount>
__device__ inline void multiply_blocks(float (&sums)[4], uint32_t weights, uint32_t rows) {
  using Bytes = BlockBytes<kFp8>;
  constexpr int kHalves = kFp8 ? 1 : 2;
  uint4 a[kCount * kHalves];
#pragma unroll
  for (int i = 0; i < kCount * kHalves; ++i)
    a[i] = ptx::load_shared(weights + i / kHalves * Bytes::kWeights + i % kHalves * 512);
  if constexpr (kFp8) {
    constexpr int kRun = kCount < Bytes::kTogether ? kCount : Bytes::kTogether;
    constexpr int kRuns = kCount / kRun;
    float part[kRuns][4];
#pragma unroll
    for (auto& values : part) ptx::pin(values);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kRun; ++i)
#pragma unroll
      for (int run = 0; run < kRuns; ++run)
        ptx::wgmma_e4m3(part[run], a[run * kRun + i],
                        ptx::rows_of(rows + (run * kRun + i) * Bytes::kRows, Bytes::kRows), i);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
#pragma unroll
    for (auto& values : part) {
      ptx::pin(values);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[i] += values[i];
    }
  } else {
    ptx::pin(sums);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kCount * 2; ++i)
      ptx::wgmma_bf16_inputs(sums, a[i],
                             ptx::rows_of(rows + i / 2 * Bytes::kRows + i % 2 * 256, Bytes::kRows));
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
    ptx::pin(sums);
  }
}

// Where a lane's bytes begin in a block.
template <bool kFp8>
__device__ inline uint32_t lane_bytes() {
  return threadIdx.x / 32 * (BlockBytes<kFp8>::kWeights / kFewWarps) + threadIdx.x % 32 * 16;
}

// This warp's 16 features of the rows that exist.
__device__ inline void store_few(const float (&sums)[4], float* piece, int num_rows) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = lane % 4 * 2;
  float* const target = piece + row * kSetColumns + threadIdx.x / 32 * 16 + lane / 4;
  if (row < num_rows) {
    target[0] = sums[0];
    target[8] = sums[2];
  }
  if (row + 1 < num_rows) {
    target[kSetColumns] = sums[1];
    target[kSetColumns + 8] = sums[3];
  }
}

}  // namespace tandem::ops::cuda
