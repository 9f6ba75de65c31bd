// The small kernels between the products of a prompt: what row_ops.h and head_prep.h are for few
// rows, on rows of BF16 instead of partial sums. Arithmetic and roundings are the same; a row's
// bits depend on that row alone.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/row_ops.h"
#include "ops/cuda/rows.h"
#include "ops/cuda/wide_operand.cuh"

namespace tandem::ops::cuda {

// bf16(rms(x) * weight) as an operand, as rows, or both.
struct WideNorm {
  const uint16_t* weight = nullptr;  // [hidden] BF16
  float eps = 1e-6F;
  WideOperand operand;         // data null: none
  uint16_t* normed = nullptr;  // [num_rows, hidden] BF16; null: none
};

// x = bf16(embedding * scale) of each row's token, then its norm.
struct WideEmbed {
  int num_rows = 0;
  int hidden = 0;
  const int32_t* tokens = nullptr;
  EmbedTable table;
  uint16_t* x = nullptr;  // [num_rows, hidden], written
  WideNorm next;
};
void wide_embed(const Stream& stream, const WideEmbed& op);

// x = bf16(bf16(x + bf16(rms(y) * post_weight)) * layer_scalar), then the next norm.
struct WideResidual {
  int num_rows = 0;
  int hidden = 0;
  const uint16_t* y = nullptr;            // [num_rows, hidden] BF16: what the product gave
  const uint16_t* post_weight = nullptr;  // [hidden] BF16
  float eps = 1e-6F;
  float layer_scalar = 1.0F;
  uint16_t* x = nullptr;  // [num_rows, hidden], the residual, updated
  WideNorm next;
};
void wide_residual(const Stream& stream, const WideResidual& op);

// Rows of a pass that share a sequence, at most kWideTileRows, in order of their positions; no tile
// has rows of two sequences. Arrays are [num_tiles].
inline constexpr int kWideTileRows = 64;
struct WideTiles {
  int num_tiles = 0;
  const int32_t* first_rows = nullptr;
  const int32_t* num_rows = nullptr;
  // The sequence's rows in the pass have the positions chunk_begins .. chunk_ends - 1.
  const int32_t* chunk_begins = nullptr;
  const int32_t* chunk_ends = nullptr;
  // Where the sequence's position 0 lies among widened keys (wide_keys.h), or null.
  const int32_t* widened_rows = nullptr;

  // Tiles first .. first + count - 1.
  WideTiles part(int first, int count) const {
    return {count,
            first_rows + first,
            num_rows + first,
            chunk_begins + first,
            chunk_ends + first,
            widened_rows == nullptr ? nullptr : widened_rows + first};
  }
};

// Head norms and rotation of q and k, the norm of v.
struct WideHeads {
  const uint16_t* product = nullptr;  // [num_rows, heads q | k | v] BF16; no v with k_eq_v
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;  // 32, 64, 128, 256 or 512
  bool k_eq_v = false;
  float eps = 0.0F;
  const uint16_t* q_norm = nullptr;  // [head_dim] BF16
  const uint16_t* k_norm = nullptr;  // [head_dim] BF16
  const float* inv_freq = nullptr;   // [head_dim / 2] F32
  uint16_t* q = nullptr;             // [num_rows, num_heads, head_dim] BF16
  // Where keys and values go: with `chunk`, there, [num_rows, num_kv_heads, head_dim] BF16, since a
  // ring may have no room for them while old keys are needed; otherwise to their places in the
  // cache.
  KvLayer chunk;
  KvLayer kv;
  KvTable places;
};
void wide_heads(const Stream& stream, const Rows& rows, const WideHeads& op);

// After attention: of each sequence's keys and values in `chunk`, those that its ring has room for,
// the newest, go to the ring.
struct RingStore {
  int num_kv_heads = 0;
  int head_dim = 0;
  KvLayer chunk;
  KvLayer kv;
  KvTable places;  // a ring
};
void store_ring(const Stream& stream, const Rows& rows, const WideTiles& tiles,
                const RingStore& op);

// Rows `sources` of `hidden_rows` [*, hidden] BF16 as rows of `out` and as the operand of the head,
// which takes few rows (operand.cuh). A source of -1 gives zeros.
void gather_rows(const Stream& stream, const uint16_t* hidden_rows, const int32_t* sources,
                 int num_rows, int hidden, uint16_t* out, const Operand& operand);

}  // namespace tandem::ops::cuda
