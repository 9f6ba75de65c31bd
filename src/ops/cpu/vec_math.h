// exp, tanh and FP8 rounding over Vec.
#pragma once

#include "ops/cpu/vec.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

// x = n ln 2 + r with |r| <= ln 2 / 2: exp(x) = 2^n (1 + r + r^2/2 + ... + r^7/7!); the series
// stops 6e-9 short.
struct ExpParts {
  Vec power;     // 2^n
  Vec fraction;  // exp(r) - 1, no cancellation for small r
};

// x in [-87.3, 88] or NaN.
TANDEM_INLINE ExpParts exp_parts(Vec x) {
  const Vec n = round_nearest(mul(x, set1(1.44269504F)));
  // ln 2 in two parts: the first has 9 bits, so that its product with n is exact.
  Vec r = fma(n, set1(-0.693359375F), x);
  r = fma(n, set1(2.12194440e-4F), r);
  Vec series = set1(1.0F / 5040.0F);
  series = fma(series, r, set1(1.0F / 720.0F));
  series = fma(series, r, set1(1.0F / 120.0F));
  series = fma(series, r, set1(1.0F / 24.0F));
  series = fma(series, r, set1(1.0F / 6.0F));
  series = fma(series, r, set1(0.5F));
  const Vec fraction = fma(mul(r, r), series, r);
  const Vec power = as_float(shift_left<23>(add(to_int(n), set1_int(127))));
  return {power, fraction};
}

// Relative error below 2e-7; 0 below -87.3, exp(88) above 88;
// NaN stays NaN.
TANDEM_INLINE Vec exp(Vec x) {
  const Vec bottom = set1(-87.3F);
  const Vec clamped = max(bottom, min(set1(88.0F), x));
  const ExpParts parts = exp_parts(clamped);
  const Vec value = fma(parts.power, parts.fraction, parts.power);
  return select(less(x, bottom), zero(), value);
}

// (e^2|x| - 1) / (e^2|x| + 1) with the sign of x. Relative error below 4e-7; NaN stays NaN.
TANDEM_INLINE Vec tanh(Vec x) {
  const IVec sign = and_(as_int(x), set1_int(INT32_MIN));
  const Vec magnitude = as_float(and_(as_int(x), set1_int(INT32_MAX)));
  // tanh(10) is 1 in FP32.
  const ExpParts parts = exp_parts(min(set1(20.0F), add(magnitude, magnitude)));
  const Vec minus_one = fma(parts.power, parts.fraction, sub(parts.power, set1(1.0F)));
  const Vec ratio = div(minus_one, add(minus_one, set1(2.0F)));
  return as_float(or_(as_int(ratio), sign));
}

// x sigmoid(2u) = x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3); -infinity gives NaN as
// it does there.
TANDEM_INLINE Vec gelu_tanh(Vec x) {
  const Vec cube = mul(mul(x, x), x);
  const Vec u = mul(set1(0.7978845608028654F), fma(set1(0.044715F), cube, x));
  const Vec exponent = mul(set1(-2.0F), u);
  // Where exp() stops growing x would not, and a gate of -1e38 not vanish.
  const Vec power = select(less(set1(88.0F), exponent), set1(__builtin_inff()), exp(exponent));
  return div(x, add(set1(1.0F), power));
}

// The E4M3 value nearest to x (ties to even, saturated at 448, NaN stays NaN): what
// e4m3_to_float(float_to_e4m3(x)) gives.
TANDEM_INLINE Vec round_e4m3(Vec x) {
  const IVec sign = and_(as_int(x), set1_int(INT32_MIN));
  const Vec magnitude = min(set1(448.0F), as_float(and_(as_int(x), set1_int(INT32_MAX))));
  const IVec bits = as_int(magnitude);
  const IVec odd = and_(shift_right<20>(bits), set1_int(1));
  const IVec normal = and_(add(bits, add(odd, set1_int(0x7ffff))), set1_int(~0xfffff));
  // Below 2^-6 the grid's step is 2^-9, that of floats from 2^14 on.
  const Vec grid = sub(add(magnitude, set1(16384.0F)), set1(16384.0F));
  const Vec value = select(less(magnitude, set1(0.015625F)), grid, as_float(normal));
  return select(is_nan(x), x, as_float(or_(as_int(value), sign)));
}

// The byte of an E4M3 value, in the low bits of each lane.
TANDEM_INLINE IVec e4m3_bits(Vec value) {
  const IVec bits = as_int(value);
  const IVec sign = and_(shift_right<24>(bits), set1_int(0x80));
  const Vec magnitude = as_float(and_(bits, set1_int(INT32_MAX)));
  const IVec normal = sub(shift_right<20>(as_int(magnitude)), set1_int((127 - 7) << 3));
  const IVec subnormal = to_int(mul(magnitude, set1(512.0F)));
  IVec code = select(less(magnitude, set1(0.015625F)), subnormal, normal);
  code = select(is_nan(value), set1_int(0x7f), code);
  return or_(code, sign);
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
