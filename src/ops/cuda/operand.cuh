// The activation side of a product, in the order in which the tensor cores take it: written by
// whoever makes the activations, and copied into shared memory as it is.
//
// Values are E4M3 for FP8 weights and BF16 for BF16 weights. Rows are padded to a multiple of 8 (a
// tile); what padding rows hold is never seen by other rows. A block of 32 inputs of a tile is
// chunks of 16 bytes, eight rows of each beside each other:
//   operand[in / 32][num_tiles][2 chunks of 16 inputs][8 rows][16 E4M3]
//   operand[in / 32][num_tiles][4 chunks of 8 inputs][8 rows][8 BF16]
// Bytes 4t .. 4t + 3 of an E4M3 chunk are its columns 2t, 2t + 1, 2t + 8, 2t + 9: a packed weight
// holds a lane's inputs in this order (packed_linear.h). BF16 chunks are in order.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "ops/cuda/rounding.cuh"

namespace tandem::ops::cuda {

inline constexpr int kE4m3TileBytes = 256;  // of a tile and 32 inputs

// Where the values go and how they are made.
struct Operand {
  void* data = nullptr;  // see above
  int num_tiles = 1;     // rows / 8, rounded up
  // > 0: E4M3(x / input_scale), nearest even, saturated. 0: x as BF16.
  float input_scale = 0.0F;
  float inverse = input_scale > 0.0F ? 1.0F / input_scale : 0.0F;
#ifdef __CUDACC__
  __device__ FloatDivisor divisor() const { return {input_scale, inverse}; }
#endif
};

// Where column `column` (even; the odd one follows it) of row `row` lies, in bytes.
__device__ inline int64_t operand_offset(const Operand& operand, int row, int column) {
  const int64_t tile = static_cast<int64_t>(column / 32) * operand.num_tiles + row / 8;
  const int within = column % 32;
  if (operand.input_scale > 0.0F)
    return tile * kE4m3TileBytes + within / 16 * 128 + row % 8 * 16 + within % 8 * 2 +
           within % 16 / 8 * 2;
  return tile * 512 + within / 8 * 128 + row % 8 * 16 + within % 8 * 2;
}

#ifdef __CUDACC__
// Stores two neighbouring values (column even) of a row; both have been rounded to BF16 by the
// caller, as the model's arithmetic does before a projection.
__device__ inline void store_operand(const Operand& operand, int row, int column, float x0,
                                     float x1, bool stores = true) {
  uint8_t* const target =
      static_cast<uint8_t*>(operand.data) + operand_offset(operand, row, column);
  if (operand.input_scale > 0.0F) {
    const auto bits = static_cast<uint16_t>(e4m3x2(x0, x1, operand.divisor()));
    if (stores) *reinterpret_cast<uint16_t*>(target) = bits;
  } else {
    const uint32_t bits = bf16x2(x0, x1);
    if (stores) *reinterpret_cast<uint32_t*>(target) = bits;
  }
}
#endif

}  // namespace tandem::ops::cuda
