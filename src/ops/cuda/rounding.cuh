// How kernels round to BF16 and E4M3, to nearest even.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace tandem::ops::cuda {

#ifdef __CUDACC__
// As the upper one of a pair above zero, which is the rounded value's FP32 bits. Pairs are
// converted at four times the rate of single values.
__device__ inline float round_bf16(float x) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(0.0F, x);
  return __uint_as_float(*reinterpret_cast<const uint32_t*>(&pair));
}

// What values are divided by: a scale, or how many columns a mean is of.
struct FloatDivisor {
  float value = 1.0F;
  float inverse = 1.0F;  // 1 / value, rounded to nearest

  // x / value, rounded to nearest: one correction of the quotient makes it exact.
  __device__ float corrected(float quotient, float x) const {
    return fmaf(-fmaf(quotient, value, -x), inverse, quotient);
  }
  // The same; far beyond E4M3 it is only large, and never inf - inf. -0 stays -0.
  __device__ float divide(float x) const {
    return corrected(fminf(fmaxf(x * inverse, -4096.0F), 4096.0F), x);
  }
};
struct ColumnCount : FloatDivisor {
  ColumnCount() = default;
  __device__ explicit ColumnCount(int count)
      : FloatDivisor{static_cast<float>(count), 1.0F / static_cast<float>(count)} {}
};

// E4M3(x / by), nearest even, saturated, the first one lowest.
__device__ inline uint32_t e4m3x2(float x0, float x1, const FloatDivisor& by) {
  return __nv_cvt_float2_to_fp8x2(make_float2(by.divide(x0), by.divide(x1)), __NV_SATFINITE,
                                  __NV_E4M3);
}
__device__ inline uint32_t e4m3x4(float x0, float x1, float x2, float x3, const FloatDivisor& by) {
  return e4m3x2(x0, x1, by) | e4m3x2(x2, x3, by) << 16;
}

// 1 / sqrt(x), both rounded to nearest as the CPU does. As the library's, but that the reciprocal
// begins from the root's own estimate and that one comparison answers for all that is special. Its
// first step rounds up: the second one is exact from there, for the largest mantissa too (Markstein
// 1990). tests/gpu/rounding_test.cu compares every float.
__device__ inline float inverse_sqrt(float x) {
  if (!(x > 1e-30F && x < 1e30F)) return __frcp_rn(__fsqrt_rn(x));
  float estimate;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(estimate) : "f"(x));
  const float near = x * estimate;
  const float root = fmaf(fmaf(-near, near, x), 0.5F * estimate, near);
  const float inverse = __fmaf_ru(fmaf(-root, estimate, 1.0F), estimate, estimate);
  return fmaf(fmaf(-root, inverse, 1.0F), inverse, inverse);
}

// (squares / count + eps)^(-1/2), every step rounded to nearest.
__device__ inline float inverse_rms(float squares, const ColumnCount& count, float eps) {
  const float quotient = squares * count.inverse;
  const float exact = count.corrected(quotient, squares);
  return inverse_sqrt((quotient < INFINITY ? exact : quotient) + eps);
}

// The two values of a word of BF16.
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
