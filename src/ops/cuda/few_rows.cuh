// What the products of few rows (row_product.cu, head_product.cu) share: the norm of a row made by
// every thread block for itself, and the shape of one tile of eight rows.
#pragma once

#include "ops/cuda/product_blocks.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/row_math.cuh"
#include "ops/cuda/row_product.h"
#include "ops/cuda/wide_operand.cuh"

namespace tandem::ops::cuda {

inline constexpr int kFewWarps = few::kWarps;
inline constexpr int kFewThreads = kFewWarps * 32;
static_assert(kMaxNormedHidden == 4 * kFewThreads);

// Of one tile of eight rows: bytes of a block's weights and rows, and how many blocks of E4M3 go to
// FP32 registers together.
template <PackedType kType>
using OneTile = few::Shape<1, kType, false, few::RingLength::kShort>;

// What threads of a norm hold before they wait for the sums.
struct NormConstants {
  uint2 post_weight = {};
  uint2 weight = {};
  int pieces = 0;
  ColumnCount columns;  // of the row
};

__device__ inline NormConstants norm_constants(const NormedRows& source) {
  const int column = static_cast<int>(threadIdx.x) * 4;
  NormConstants constants;
  constants.columns = ColumnCount(source.hidden);
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
  value = parts[lane % kFewWarps];
#pragma unroll
  for (int mask = kFewWarps / 2; mask > 0; mask /= 2)
    value += __shfl_xor_sync(0xffffffffU, value, mask);
  return value;
}

// Leaves the normed rows in `rows`, an operand of one tile in shared memory; the first kFewThreads
// threads call it, and see what is left after a barrier of theirs. `parts`: [2][kFewWarps].
__device__ inline void make_normed_rows(const NormedRows& source, const NormConstants& constants,
                                        int num_rows, void* rows, float* parts) {
  const int hidden = source.hidden;
  const int column = static_cast<int>(threadIdx.x) * 4;
  const bool inside = column < hidden;
  const auto row_inverse_rms = [&](const Four& x, float eps, float* sum_parts) {
    float squares = 0.0F;
#pragma unroll
    for (int j = 0; j < 4; ++j) squares += x.v[j] * x.v[j];
    return inverse_rms(add_up_row(squares, sum_parts), constants.columns, eps);
  };
  const Operand operand{rows, 1, source.input_scale};
  for (int row = 0; row < num_rows; ++row) {
    const int64_t place = static_cast<int64_t>(row) * hidden + column;
    Four x;
    if (inside && source.post_weight != nullptr) x = unpack(load_bits(source.x + place));
    Four y;
    if (inside) y = scaled(load_sum4(source.sums, row, column, constants.pieces), source.scale);
    if (source.post_weight != nullptr) {
      const float inverse = row_inverse_rms(y, source.eps, parts);
      x = joined(x, normalized(y, inverse, constants.post_weight), source.layer_scalar);
    } else {
      x = y;
    }
    if (inside && source.new_x != nullptr && blockIdx.x == 0) store_bits(source.new_x + place, x);
    // A barrier lies between two uses of the same parts.
    float* const next_parts =
        parts + (source.post_weight != nullptr || row % 2 != 0 ? kFewWarps : 0);
    const Four n = normalized(x, row_inverse_rms(x, source.next_eps, next_parts), constants.weight);
    if (!inside) continue;
    store_operand(operand, row, column, n.v[0], n.v[1]);
    store_operand(operand, row, column + 2, n.v[2], n.v[3]);
  }
}

// E4M3 sums += `pairs` times two stages, in order, from this lane's address on: while one is
// multiplied, the next one's weights are on their way to registers. await(block) returns when a
// block is there.
template <typename Await>
__device__ inline void multiply_stages(float (&sums)[4], int pairs, uint32_t weights, uint32_t rows,
                                       const Await& await) {
  using S = OneTile<PackedType::kFp8>;
  constexpr int kBlocks = S::kStageBlocks;
  using Stage = few::Blocks<S, kBlocks>;
  const auto take = [&](int stage) {
    await((stage + 1) * kBlocks - 1);
    return Stage(weights + stage * kBlocks * S::kBlockBytes, rows + stage * kBlocks * S::kRowBytes);
  };
  float own[4];
  const auto start = [&own](const Stage& stage) {
    ptx::pin(own);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) stage.multiply_e4m3(own, i, 0);
    ptx::warpgroup_commit();
  };
  const auto finish = [&own, &sums] {
    ptx::warpgroup_wait<0>();
    ptx::pin(own);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] += own[i];
  };
  Stage first = take(0);
#pragma unroll 1
  for (int stage = 0; stage < 2 * pairs; stage += 2) {
    start(first);
    const Stage second = take(stage + 1);
    finish();
    start(second);
    first = take(min(stage + 2, 2 * pairs - 1));
    finish();
  }
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
