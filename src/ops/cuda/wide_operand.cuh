// The activation side of a product of many rows: E4M3 bytes, a row's 128 inputs beside each other,
// in the order in which the tensor cores take them, so that a tile of rows is one run of bytes.
//   operand[in / 128, rounded up][capacity rows][128 bytes]
// The 16-byte chunks of row r are exchanged as shared memory wants them: chunk c lies at c ^ (r %
// 8). Within a chunk, columns 2t, 2t + 1, 2t + 8, 2t + 9 of its 16 are bytes 4t .. 4t + 3: a packed
// weight's 16 bytes (packed_linear.h) hold a lane's inputs in this order.
#pragma once

#include <cstdint>

#include "ops/cuda/rounding.cuh"

namespace tandem::ops::cuda {

struct WideOperand {
  uint8_t* data = nullptr;
  int capacity = 0;          // rows, a multiple of kWideRowStep
  float input_scale = 1.0F;  // values are E4M3(x / input_scale), nearest even, saturated
  float inverse = 1.0F / input_scale;
#ifdef __CUDACC__
  __device__ FloatDivisor divisor() const { return {input_scale, inverse}; }
#endif
};

// Tiles of rows are whole: a tile reads up to its end, rows beyond the last one hold anything.
inline constexpr int kWideRowStep = 256;
constexpr int64_t whole_wide_tiles(int64_t num_rows) {
  return (num_rows + kWideRowStep - 1) / kWideRowStep * kWideRowStep;
}

constexpr int64_t wide_operand_bytes(int in_features, int capacity) {
  return int64_t{(in_features + 127) / 128} * capacity * 128;
}

#ifdef __CUDACC__
// Where the word lies that holds columns c + 2t, c + 2t + 1, c + 2t + 8, c + 2t + 9 of a row, c a
// multiple of 16.
__device__ inline int64_t wide_word(int capacity, int row, int column, int t) {
  const int chunk = column % 128 / 16 ^ row % 8;
  return (static_cast<int64_t>(column / 128) * capacity + row) * 128 + chunk * 16 + 4 * t;
}
#endif

}  // namespace tandem::ops::cuda
