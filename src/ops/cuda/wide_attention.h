// Attention of a prompt's rows over what is in the KV cache and over the keys of their own pass.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/rows.h"
#include "ops/cuda/wide_operand.cuh"
#include "ops/cuda/wide_rows.h"

namespace tandem::ops::cuda {

struct WideAttention {
  int num_heads = 0;
  int num_kv_heads = 0;         // num_heads / num_kv_heads at most 64
  int head_dim = 0;             // 32, 64, 128, 256 or 512
  int window = 0;               // 0: every key up to the row's own
  const uint16_t* q = nullptr;  // [num_rows, num_heads, head_dim] BF16
  KvLayer kv;
  KvTable places;
  // Keys and values of the pass's rows, [num_rows, num_kv_heads, head_dim], BF16: what the cache
  // would give, before its scales; null: they are in `kv`.
  KvLayer chunk;
  // The keys and values of `kv` widened to BF16 (wide_keys.h), or null: only where
  // takes_widened_keys().
  KvLayer widened;
  WideOperand out;  // [num_rows, num_heads * head_dim], the operand of o_proj
};

// Whether attention over widened keys is for such heads. Its bits are others.
bool takes_widened_keys(int num_heads, int num_kv_heads, int head_dim);

// out[r] = softmax(q[r] K^T) V over the window that ends at the row's own position. Keys are taken
// 64 at a time from multiples of 64 on, so a row's bits depend on neither the other rows nor the
// tiles. What no row of a tile sees may hold anything.
void wide_attention(const Stream& stream, const Rows& rows, const WideTiles& tiles,
                    const WideAttention& job);

}  // namespace tandem::ops::cuda
