// Arithmetic that the kernels of prompts share.
#pragma once

#include <cuda_runtime.h>

namespace tandem::ops::cuda {

// x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3)), which is gelu with tanh; to about 2^-20 of the
// value, where results are rounded to 2^-9.
__device__ inline float gelu_tanh_approx(float x) {
  constexpr float kTwoSqrtTwoOverPiLog2E = 2.0F * 0.7978845608028654F * 1.4426950408889634F;
  const float inner = kTwoSqrtTwoOverPiLog2E * fmaf(0.044715F * x * x, x, x);
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-inner));
  float share;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(share) : "f"(1.0F + power));
  return x * share;
}

}  // namespace tandem::ops::cuda
