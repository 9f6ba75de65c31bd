// FP8 E4M3 ("e4m3fn"): 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity; NaN is 0x7F and
// 0xFF; largest finite 448; smallest normal 2^-6; smallest subnormal 2^-9 (spec: OCP OFP8 v1.0).
#pragma once

#include <array>
#include <cstdint>

namespace tandem::core {

inline constexpr float kE4M3Max = 448.0F;

// Exact value of a byte; NaN for 0x7F and 0xFF.
float e4m3_to_float(uint8_t byte);

// All 256 values, for kernels that look up.
const std::array<float, 256>& e4m3_table();  // [256]

// Round to nearest even with saturation: magnitudes beyond 448 (and infinities) become +-448, as
// the hardware's satfinite conversion does; NaN becomes 0x7F with the sign kept.
uint8_t float_to_e4m3(float value);

constexpr bool e4m3_is_nan(uint8_t byte) {
  return (byte & 0x7fU) == 0x7fU;
}

}  // namespace tandem::core
