// The rows of a step and the KV cache as kernels see them: plain device pointers.
#pragma once

#include <cstdint>

namespace tandem::ops::cuda {

// Kernels keep a sequence's number in 16 bits.
inline constexpr int kMaxSequences = 32767;

// Per-row values on the device, [num_rows]. A padding row has sequence -1: it writes no KV, reads
// no KV, and what it computes is never looked at.
struct Rows {
  int num_rows = 0;  // a multiple of 8 with the padding, which not every kernel needs to see
  const int32_t* tokens = nullptr;
  const int32_t* positions = nullptr;  // of the row: RoPE, and where its KV goes
  const int32_t* last_keys = nullptr;  // last visible key: the position in a target, L-2 in a draft
  const int32_t* sequences = nullptr;  // row of the block tables, below kMaxSequences; -1: padding
  // Positions, last keys, sequences, tiles and block tables were complete before the first kernel
  // that may still run when one of this pass starts: kernels read them before they wait.
  bool early_plan = false;
};

// Keys and values of one layer, [num_blocks][num_kv_heads][block_size][head_dim]: BF16, or E4M3
// that stands for element * scale.
struct KvLayer {
  void* k = nullptr;
  void* v = nullptr;
  bool is_fp8 = false;
  float k_scale = 1.0F;  // of E4M3
  float v_scale = 1.0F;

  constexpr int element_bytes() const { return is_fp8 ? 1 : 2; }
};

// Position p of sequence s: block table[s * max_blocks + p' / block_size], place p' % block_size,
// p' = p % ring_len in a ring, p in pages (ring_len 0). ring_len is a multiple of block_size.
struct KvTable {
  const int32_t* table = nullptr;
  int max_blocks = 0;
  int block_size = 32;
  int ring_len = 0;
};

// Query rows that share a sequence, at most kTileRows consecutive rows of the batch: what one
// thread block of attention works on. num_rows 0: nothing to do.
inline constexpr int kTileRows = 9;
struct QueryTiles {
  int num_tiles = 0;
  const int32_t* first_rows = nullptr;  // [num_tiles] index into Rows
  const int32_t* num_rows = nullptr;    // [num_tiles]
};

}  // namespace tandem::ops::cuda
