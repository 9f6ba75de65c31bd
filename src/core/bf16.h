// bfloat16: the upper half of an IEEE float32.
#pragma once

#include <bit>
#include <cstdint>

namespace tandem::core {

struct BFloat16 {
  uint16_t bits = 0;
};

constexpr float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Round to nearest even; NaN stays a quiet NaN; overflow becomes infinity as IEEE asks.
constexpr BFloat16 to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U)
    return BFloat16{static_cast<uint16_t>((bits >> 16) | 0x0040U)};
  const uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  return BFloat16{static_cast<uint16_t>(rounded >> 16)};
}

// The float nearest to `value` that a bfloat16 can hold.
constexpr float round_to_bf16(float value) {
  return to_float(to_bf16(value));
}

}  // namespace tandem::core
