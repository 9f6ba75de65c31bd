// The activation side of a product of many rows: E4M3 bytes, a row's 128 inputs beside each other,
// in the order in which the tensor cores take them, so that a tile of rows is one run of bytes.
//   operand[in / 128, rounded up][capacity rows][128 bytes]
// The 16-byte chunks of row r are exchanged as shared memory wants them: chunk c lies at c ^ (r %
// 8). Within a chunk, columns 2t, 2t + 1, 2t + 8, 2t + 9 of its 16 are bytes 4t .. 4t + 3: a packed
// weight's 16 bytes (packed_linear.h) hold a lane's inputs in this order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace tandem::ops::cuda {

struct WideOperand {
  uint8_t* data = nullptr;
  int capacity = 0;          // rows, a multiple of kWideRowStep
  float input_scale = 1.0F;  // values are E4M3(x / input_scale), nearest even, saturated
};

// Tiles of rows are whole: a tile reads up to its end, rows beyond the last one hold anything.
inline constexpr int kWideRowStep = 256;

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

// x / scale, rounded to nearest, for `inverse` = 1 / scale rounded to nearest: one correction of
// the quotient makes it exact. Far beyond E4M3 it is only large, and never inf - inf. -0 stays -0.
__device__ inline float divide_by(float x, float scale, float inverse) {
  const float quotient = fminf(fmaxf(x * inverse, -4096.0F), 4096.0F);
  return copysignf(fmaf(fmaf(-quotient, scale, x), inverse, quotient), x);
}

__device__ inline uint32_t e4m3x2(float x0, float x1, float scale, float inverse) {
  return __nv_cvt_float2_to_fp8x2(
      make_float2(divide_by(x0, scale, inverse), divide_by(x1, scale, inverse)), __NV_SATFINITE,
      __NV_E4M3);
}

__device__ inline float low_bf16(uint32_t two) {
  return __uint_as_float(two << 16);
}
__device__ inline float high_bf16(uint32_t two) {
  return __uint_as_float(two & 0xffff0000U);
}
__device__ inline uint32_t bf16x2(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
#endif

}  // namespace tandem::ops::cuda
