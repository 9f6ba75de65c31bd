// From the fused projection's sums to queries and the KV cache: scale, head norms, rotation.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/partials.cuh"
#include "ops/cuda/rows.h"

namespace tandem::ops::cuda {

struct HeadPrep {
  // Columns [num_heads q | num_kv_heads k | num_kv_heads v] of head_dim each; no v with k_eq_v, no
  // k and v without KV heads (the assistant).
  Partials product;
  float scales[3] = {1.0F, 1.0F, 1.0F};  // of q, k and v: value = BF16(sum * scale)
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;     // a multiple of 32, at most 512
  bool k_eq_v = false;  // V is the raw K projection, normed without a weight and not rotated
  float eps = 0.0F;
  const uint16_t* q_norm = nullptr;  // [head_dim] BF16
  const uint16_t* k_norm = nullptr;  // [head_dim] BF16
  const float* inv_freq = nullptr;   // [head_dim / 2] F32, ops/rope.h
  KvLayer kv;                        // num_kv_heads > 0: where positions' keys and values go
  KvTable places;
  uint16_t* q = nullptr;  // [num_rows, num_heads, head_dim] BF16, normed and rotated
};

// Padding rows get zeros as queries and write no KV. Rounds to BF16 where ops/rms_norm and ops/rope
// on BF16 rows do.
void head_prep(const Stream& stream, const Rows& rows, const HeadPrep& job);

}  // namespace tandem::ops::cuda
