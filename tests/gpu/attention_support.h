// A KV cache in the device's layout and the reference's, and batches of rows, for attention's
// tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "ops/attention.h"
#include "ops/cuda/rows.h"
#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {

using core::BFloat16;

inline constexpr int32_t kHuge = 2147480000;

// Of a layer.
struct Heads {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  bool e4m3_cache = false;
};
inline std::string name_of(const Heads& heads) {
  return std::to_string(heads.num_heads) + "_over_" + std::to_string(heads.num_kv_heads) + "_of_" +
         std::to_string(heads.head_dim) + (heads.e4m3_cache ? "_e4m3" : "");
}

// Of E4M3: random values use much of the format's range.
inline constexpr float kKeyScale = 0.031F;
inline constexpr float kValueScale = 0.017F;

struct Layout {
  int block_size = 16;
  int ring_len = 0;
  int window = 0;
  std::vector<int> lengths;  // positions 0 .. length - 1 of each sequence have been written
};

// Keys and values in both layouts, the device's and the reference's, with the same block numbers.
// Slots that no position uses are NaN (E4M3: what kernels take for -480); entries of the table that
// no position uses are huge.
class Cache {
 public:
  Cache(const Heads& heads, const Layout& layout)
      : heads_(heads),
        layout_(layout),
        k_(dtype(), {num_slots(), heads.num_kv_heads, heads.head_dim}),
        v_(dtype(), {num_slots(), heads.num_kv_heads, heads.head_dim}) {
    fill_bytes(k_);
    fill_bytes(v_);
    places_.max_blocks = 3;
    for (const int length : layout.lengths)
      places_.max_blocks = std::max<int64_t>(places_.max_blocks, blocks_of(length) + 3);
    places_.block_size = layout.block_size;
    places_.ring_len = layout.ring_len;
    table_.assign(layout.lengths.size() * static_cast<size_t>(places_.max_blocks), kHuge);
    std::vector<int32_t> blocks(static_cast<size_t>(num_slots() / layout.block_size));
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(5));
    for (size_t s = 0; s < layout.lengths.size(); ++s)
      for (int b = 0; b < blocks_of(layout.lengths[s]); ++b) {
        table_[s * static_cast<size_t>(places_.max_blocks) + static_cast<size_t>(b)] =
            blocks.back();
        blocks.pop_back();
      }
    places_.block_table = table_;
  }

  // value(kv_head, column) for K and V of one position.
  template <typename K, typename V>
  void write(int sequence, int position, const K& key, const V& value) {
    const int64_t slot = places_.slot(sequence, position);
    for (int h = 0; h < heads_.num_kv_heads; ++h)
      for (int c = 0; c < heads_.head_dim; ++c) {
        store(k_, slot, h * heads_.head_dim + c, key(h, c) / k_scale());
        store(v_, slot, h * heads_.head_dim + c, value(h, c) / v_scale());
      }
  }
  // Random values everywhere, oldest position first, so that a ring holds the newest.
  void write_random(uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, 1.0F);
    const auto draw = [&](int, int) { return normal(random); };
    for (size_t s = 0; s < layout_.lengths.size(); ++s)
      for (int p = 0; p < layout_.lengths[s]; ++p) write(static_cast<int>(s), p, draw, draw);
  }

  // [num_blocks][num_kv_heads][block_size][head_dim], as bytes.
  std::vector<uint8_t> device_bytes(const Tensor& tensor) const {
    const size_t row_bytes = static_cast<size_t>(heads_.head_dim) * core::dtype_bytes(dtype());
    const auto* const rows = static_cast<const uint8_t*>(tensor.view().data);
    std::vector<uint8_t> bytes;
    for (int64_t block = 0; block < num_slots() / layout_.block_size; ++block)
      for (int64_t h = 0; h < heads_.num_kv_heads; ++h)
        for (int64_t i = 0; i < layout_.block_size; ++i) {
          const int64_t row = (block * layout_.block_size + i) * heads_.num_kv_heads + h;
          const uint8_t* const from = rows + static_cast<size_t>(row) * row_bytes;
          bytes.insert(bytes.end(), from, from + row_bytes);
        }
    return bytes;
  }
  // The same of BF16.
  std::vector<uint16_t> device_order(const Tensor& tensor) const {
    const std::vector<uint8_t> bytes = device_bytes(tensor);
    std::vector<uint16_t> bits(bytes.size() / 2);
    std::memcpy(bits.data(), bytes.data(), bytes.size());
    return bits;
  }
  // What is at these addresses in that order.
  cuda::KvLayer device_layer(void* k, void* v) const {
    return {k, v, heads_.e4m3_cache, k_scale(), v_scale()};
  }
  KvView view(const Tensor& values) const { return {k_, values, k_scale(), v_scale()}; }

  const Heads& heads() const { return heads_; }
  const Layout& layout() const { return layout_; }
  const Tensor& k() const { return k_; }
  const Tensor& v() const { return v_; }
  // V, or |V|.
  Tensor values(bool absolute) const {
    Tensor values(dtype(), {num_slots(), heads_.num_kv_heads, heads_.head_dim});
    for (int64_t r = 0; r < values.rows(); ++r)
      for (int64_t c = 0; c < values.cols(); ++c)
        store(values, r, c, absolute ? std::fabs(v_.at(r, c)) : v_.at(r, c));
    return values;
  }
  const KvPlaces& places() const { return places_; }
  const std::vector<int32_t>& table() const { return table_; }

 private:
  int blocks_of(int length) const {
    const int used = layout_.ring_len == 0 ? length : std::min(length, layout_.ring_len);
    return (used + layout_.block_size - 1) / layout_.block_size;
  }
  int64_t num_slots() const {
    int64_t blocks = 2;
    for (const int length : layout_.lengths) blocks += blocks_of(length);
    return blocks * layout_.block_size;
  }
  DType dtype() const { return heads_.e4m3_cache ? DType::kF8E4M3 : DType::kBF16; }
  float k_scale() const { return heads_.e4m3_cache ? kKeyScale : 1.0F; }
  float v_scale() const { return heads_.e4m3_cache ? kValueScale : 1.0F; }
  static void fill_bytes(const Tensor& tensor) {
    std::memset(tensor.view().data, 0xff,
                static_cast<size_t>(tensor.rows() * tensor.cols()) *
                    core::dtype_bytes(tensor.view().dtype));
  }

  Heads heads_;
  Layout layout_;
  Tensor k_;
  Tensor v_;
  KvPlaces places_;
  std::vector<int32_t> table_;
};

struct RowSpec {
  int sequence;
  int last_key;
};

// The batch that the tests give to the device: rows, then padding up to a multiple of 8.
struct Batch {
  Batch(std::vector<RowSpec> specs, int max_tile_rows) : rows(std::move(specs)) {
    for (size_t r = 0; r < rows.size(); ++r) {
      sequences.push_back(rows[r].sequence);
      last_keys.push_back(rows[r].last_key);
      const bool joins =
          r > 0 && rows[r].sequence == rows[r - 1].sequence && tile_rows.back() < max_tile_rows;
      if (joins) {
        ++tile_rows.back();
      } else {
        first_rows.push_back(static_cast<int32_t>(r));
        tile_rows.push_back(1);
      }
    }
    while (sequences.size() % 8 != 0) {
      sequences.push_back(-1);
      last_keys.push_back(kHuge);
    }
    first_rows.push_back(kHuge);  // a tile with nothing to do
    tile_rows.push_back(0);
  }
  int num_rows() const { return static_cast<int>(sequences.size()); }

  std::vector<RowSpec> rows;
  std::vector<int32_t> sequences, last_keys, first_rows, tile_rows;
};

}  // namespace tandem::ops::test
