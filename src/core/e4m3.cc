#include "core/e4m3.h"

#include <bit>
#include <cmath>
#include <limits>

namespace tandem::core {
namespace {

constexpr int kExponentBias = 7;
constexpr int kMantissaBits = 3;

float decode(uint8_t byte) {
  if (e4m3_is_nan(byte)) return std::numeric_limits<float>::quiet_NaN();
  const int exponent = (byte >> kMantissaBits) & 0xf;
  const int mantissa = byte & 0x7;
  const float magnitude =
      exponent == 0
          ? std::ldexp(static_cast<float>(mantissa), 1 - kExponentBias - kMantissaBits)
          : std::ldexp(static_cast<float>(8 + mantissa), exponent - kExponentBias - kMantissaBits);
  return (byte & 0x80U) != 0 ? -magnitude : magnitude;
}

std::array<float, 256> make_table() {
  std::array<float, 256> table{};
  for (size_t byte = 0; byte < table.size(); ++byte)
    table[byte] = decode(static_cast<uint8_t>(byte));
  return table;
}

}  // namespace

const std::array<float, 256>& e4m3_table() {
  static const std::array<float, 256> table = make_table();
  return table;
}

float e4m3_to_float(uint8_t byte) {
  return e4m3_table()[byte];
}

uint8_t float_to_e4m3(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80U);
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<uint8_t>(sign | 0x7fU);
  // 448 is 0x43e00000. Everything from there on saturates; 464, halfway to 480, does too.
  if (magnitude >= 0x43e00000U) return static_cast<uint8_t>(sign | 0x7eU);
  if (magnitude < 0x3c800000U) {
    // Below 2^-6 the grid is uniform with step 2^-9: adding 2^14 leaves exactly that grid in the
    // float's mantissa, rounded to nearest even by the addition.
    const float shifted = std::bit_cast<float>(magnitude) + 16384.0F;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000U));
  }
  // Normal: keep 3 of 23 mantissa bits, nearest even, then move the exponent's bias from 127 to 7.
  const uint32_t rounded = magnitude + 0x7ffffU + ((magnitude >> 20) & 1U);
  const uint32_t code = (rounded >> 20) - ((127U - 7U) << 3);
  return static_cast<uint8_t>(sign | (code > 0x7eU ? 0x7eU : code));
}

}  // namespace tandem::core
