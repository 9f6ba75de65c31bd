// Attention over the KV store: sliding rings and full pages through one block table.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor_view.h"
#include "ops/context.h"

namespace tandem::ops {

// Keys and values of one layer for all sequences. A slot is one position of one sequence.
struct KvView {
  core::TensorView k;    // [num_slots, num_key_value_heads, head_dim] F32, BF16 or F8_E4M3
  core::TensorView v;    // same
  float k_scale = 1.0F;  // F8_E4M3: value = byte * scale
  float v_scale = 1.0F;
};

// Where a sequence's positions lie. Position p of sequence s is in slot
//   block_table[s][p' / block_size] * block_size + p' % block_size,
// with p' = p % ring_len for a ring (sliding layers) and p' = p for pages (ring_len == 0).
struct KvPlaces {
  std::span<const int32_t> block_table;  // [num_sequences, max_blocks] row-major
  int64_t max_blocks = 0;
  int64_t block_size = 0;
  int64_t ring_len = 0;  // a multiple of block_size; 0: pages

  // The blocks of one sequence.
  std::span<const int32_t> blocks_of(size_t sequence) const {
    const auto columns = static_cast<size_t>(max_blocks);
    return block_table.subspan(sequence * columns, columns);
  }
  int64_t slot(int64_t sequence, int64_t position) const {
    const int64_t p = ring_len == 0 ? position : position % ring_len;
    return block_table[static_cast<size_t>(sequence * max_blocks + p / block_size)] * block_size +
           p % block_size;
  }
};

// Stores k and v rows: row r at position positions[r] of sequence sequences[r].
// k, v [n, num_key_value_heads, head_dim] F32 or BF16; converted to the store's dtype (E4M3:
// divided by the scale, rounded to nearest even, saturated).
void kv_write(const Context& context, const core::TensorView& k, const core::TensorView& v,
              std::span<const int32_t> sequences, std::span<const int32_t> positions,
              const KvPlaces& places, const KvView& kv);

// out[r] = softmax(q[r] K^T) V over the keys of sequence sequences[r] at positions
// max(0, last_keys[r] - window + 1) .. last_keys[r] (window 0: from 0). The softmax scale is 1.0,
// there is no soft cap (gemma4_pair 4). Softmax in FP32. Query head j reads KV head
// j / (num_heads / num_key_value_heads). Slots outside the range are never read: they may hold NaN.
// q, out [n, num_heads, head_dim] F32 or BF16. last_keys[r] < 0 gives zeros.
void attention(const Context& context, const core::TensorView& q,
               std::span<const int32_t> sequences, std::span<const int32_t> last_keys,
               int64_t window, const KvPlaces& places, const KvView& kv,
               const core::TensorView& out);

}  // namespace tandem::ops
