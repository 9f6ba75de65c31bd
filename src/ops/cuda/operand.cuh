// The activation side of a product: 16-bit values in the order in which the tensor cores take
// them, written by whoever makes the activations and copied into shared memory as they are.
//
// Values are FP16 for FP8 weights (quantized activations: E4M3 values are exact in FP16) and BF16
// for BF16 weights. Rows are padded to a multiple of 8 (a tile); what padding rows hold is never
// seen by other rows.
//   operand[in / 32][num_tiles][32 lanes][8 values]
// Lane 4 g + t of a tile holds row g, columns 2t, 2t+1, 2t+8, 2t+9, 2t+16, 2t+17, 2t+24, 2t+25 of
// the block of 32: the B fragments of two mma.m16n8k16.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace tandem::ops::cuda {

// Where the values go and how they are made.
struct Operand {
  uint16_t* data = nullptr;  // see above
  int num_tiles = 1;         // rows / 8, rounded up
  // > 0: E4M3(x / input_scale), nearest even, saturated, stored as FP16. 0: x as BF16.
  float input_scale = 0.0F;
};

// Index of column `column` (even; the odd one follows it) of row `row`.
__device__ inline int64_t operand_index(int num_tiles, int row, int column) {
  const int block = column / 32;
  const int within = column % 32;
  const int lane = (row % 8) * 4 + (within % 8) / 2;
  return ((static_cast<int64_t>(block) * num_tiles + row / 8) * 32 + lane) * 8 + (within / 8) * 2;
}

// Stores two neighbouring values (column even) of a row; both have been rounded to BF16 by the
// caller, as the model's arithmetic does before a projection.
__device__ inline void store_operand(const Operand& operand, int row, int column, float x0,
                                     float x1) {
  auto* target =
      reinterpret_cast<uint32_t*>(operand.data + operand_index(operand.num_tiles, row, column));
  if (operand.input_scale > 0.0F) {
    const __nv_fp8x2_storage_t quantized = __nv_cvt_float2_to_fp8x2(
        make_float2(x0 / operand.input_scale, x1 / operand.input_scale), __NV_SATFINITE, __NV_E4M3);
    const __half2_raw half = __nv_cvt_fp8x2_to_halfraw2(quantized, __NV_E4M3);
    *target = static_cast<uint32_t>(half.x) | (static_cast<uint32_t>(half.y) << 16);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x0, x1);
    *target = *reinterpret_cast<const uint32_t*>(&pair);
  }
}

__device__ inline float round_bf16(float x) {
  return __bfloat162float(__float2bfloat16_rn(x));
}

}  // namespace tandem::ops::cuda
