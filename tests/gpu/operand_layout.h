// Where values lie in a product's operand (ops/cuda/operand.cuh), as the host sees it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace tandem::tests {

// The bits of one value: E4M3 (the low eight) or BF16.
inline uint16_t operand_bits(const std::vector<uint8_t>& operand, bool fp8, int num_tiles, int row,
                             int column) {
  const size_t tile = static_cast<size_t>(column / 32 * num_tiles + row / 8);
  const auto place = static_cast<size_t>(row % 8 * 16);
  if (!fp8) {
    uint16_t bits = 0;
    const auto chunk = static_cast<size_t>(column % 32 / 8);
    std::memcpy(
        &bits, &operand[tile * 512 + chunk * 128 + place + static_cast<size_t>(column % 8) * 2], 2);
    return bits;
  }
  // The order of a chunk's 16 columns.
  constexpr int kColumns[16] = {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15};
  const auto chunk = static_cast<size_t>(column % 32 / 16);
  for (size_t i = 0; i < 16; ++i)
    if (kColumns[i] == column % 16) return operand[tile * 256 + chunk * 128 + place + i];
  return 0;
}

}  // namespace tandem::tests
