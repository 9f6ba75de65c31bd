// How keys and values of BF16 are kept in a cache of E4M3, and in a chunk beside one.
#pragma once

#include "ops/cuda/operand.cuh"
#include "ops/cuda/rows.h"
#include "ops/cuda/wide_operand.cuh"

namespace tandem::ops::cuda {

// Of a layer's keys or values.
__device__ inline FloatDivisor kv_divisor(float scale) {
  return {scale, __frcp_rn(scale)};
}

// Four columns: E4M3(bf16(x) / by), the first column lowest, nearest even, saturated.
__device__ inline uint32_t stored_e4m3(const float (&x)[4], const FloatDivisor& by) {
  return e4m3x4(round_bf16(x[0]), round_bf16(x[1]), round_bf16(x[2]), round_bf16(x[3]), by);
}

// Four columns of values that E4M3 holds exactly, in BF16, as their bytes.
__device__ inline uint32_t narrowed_e4m3(const uint2& bf16) {
  const auto two = [](uint32_t bits) -> uint32_t {
    return __nv_cvt_float2_to_fp8x2(make_float2(low_bf16(bits), high_bf16(bits)), __NV_SATFINITE,
                                    __NV_E4M3);
  };
  return two(bf16.x) | (two(bf16.y) << 16);
}

}  // namespace tandem::ops::cuda
