// What a KV cache of E4M3 holds, as the CPU writes it.
#pragma once

#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "core/bf16.h"
#include "core/e4m3.h"
#include "ops/attention.h"

namespace tandem::tests {

// Small enough that values of normed heads are saturated.
inline constexpr float kKeyScale = 0.0031F;
inline constexpr float kValueScale = 0.0017F;

// Bytes of rows [num_rows, columns] by ops::kv_write.
inline std::vector<uint8_t> stored_by_cpu(std::vector<core::BFloat16> rows, int64_t columns,
                                          float scale) {
  const auto num_rows = static_cast<int64_t>(rows.size()) / columns;
  std::vector<uint8_t> bytes(rows.size(), 0xff);
  std::vector<uint8_t> unused = bytes;
  std::vector<int32_t> positions(static_cast<size_t>(num_rows));
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> sequences(positions.size(), 0);
  const core::Shape shape{num_rows, 1, columns};
  const core::TensorView from(rows.data(), core::DType::kBF16, shape);
  ops::KvView kv;
  kv.k = core::TensorView(bytes.data(), core::DType::kF8E4M3, shape);
  kv.v = core::TensorView(unused.data(), core::DType::kF8E4M3, shape);
  kv.k_scale = kv.v_scale = scale;
  ops::KvPlaces places;  // one row after the other
  places.block_table = positions;
  places.max_blocks = num_rows;
  places.block_size = 1;
  ops::kv_write({}, from, from, sequences, positions, places, kv);
  return bytes;
}

// The same bytes as BF16, which holds each of them.
inline std::vector<core::BFloat16> widened(const std::vector<uint8_t>& bytes) {
  std::vector<core::BFloat16> values;
  for (const uint8_t byte : bytes) values.push_back(core::to_bf16(core::e4m3_to_float(byte)));
  return values;
}

// Values of very different sizes, zeros of both signs among them: divided by a scale, they meet all
// that E4M3 has.
inline std::vector<core::BFloat16> steep_bf16(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> exponent(-16.0F, 3.0F);
  std::vector<core::BFloat16> values(count);
  for (core::BFloat16& value : values) {
    const float magnitude = random() % 16 == 0 ? 0.0F : std::exp2(exponent(random));
    value = core::to_bf16(random() % 2 == 0 ? -magnitude : magnitude);
  }
  return values;
}

// Whether bytes hold every kind of value: both zeros, both subnormal ones, normal and saturated.
inline bool meets_all_kinds(const std::vector<uint8_t>& bytes) {
  bool kinds[2][4] = {};
  for (const uint8_t byte : bytes) {
    const int magnitude = byte & 0x7f;
    kinds[byte >> 7][magnitude == 0 ? 0 : magnitude < 8 ? 1 : magnitude < 0x7e ? 2 : 3] = true;
  }
  for (const auto& sign : kinds)
    for (const bool met : sign)
      if (!met) return false;
  return true;
}

}  // namespace tandem::tests
