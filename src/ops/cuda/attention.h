// Attention of the rows of a step over the KV cache, cut along the keys so that a few rows use the
// whole device: ops/attention.h for BF16 keys and values.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/operand.cuh"
#include "ops/cuda/rows.h"

namespace tandem::ops::cuda {

// Partial results are kept for segments of keys, cut where positions alone decide, so that a row's
// sums, taken over its segments in order, are the same whatever runs beside it. Later segments are
// longer: short contexts use the whole device, long ones a bounded workspace. Layers with a window
// have no segments.
struct SegmentRun {
  int first_segment;
  int first_key;
  int keys;  // of each segment from here on
};
__host__ __device__ constexpr SegmentRun segment_run_of_key(int64_t key) {
  if (key < 1024) return {0, 0, 256};
  if (key < 4096) return {4, 1024, 512};
  if (key < 32768) return {10, 4096, 1024};
  return {38, 32768, 4096};
}
__host__ __device__ constexpr int segment_of(int key) {
  const SegmentRun run = segment_run_of_key(key);
  return run.first_segment + (key - run.first_key) / run.keys;
}
__host__ __device__ constexpr int segment_begin(int segment) {
  const SegmentRun run = segment < 4    ? segment_run_of_key(0)
                         : segment < 10 ? segment_run_of_key(1024)
                         : segment < 38 ? segment_run_of_key(4096)
                                        : segment_run_of_key(32768);
  return run.first_key + (segment - run.first_segment) * run.keys;
}
static_assert(segment_begin(4) == 1024 && segment_begin(10) == 4096 && segment_begin(38) == 32768);
static_assert(segment_of(1023) == 3 && segment_of(4095) == 9 && segment_of(32767) == 37);

// Segments of rows that see positions below num_keys (> 0).
constexpr int attention_max_segments(int window, int64_t num_keys) {
  return window > 0 ? 1 : segment_of(static_cast<int>(num_keys) - 1) + 1;
}

// Room for the partial results of one launch; attention() runs of one stream can share it.
constexpr size_t attention_workspace_bytes(int num_rows, int num_heads, int head_dim,
                                           int max_segments) {
  return static_cast<size_t>(num_rows) * static_cast<size_t>(num_heads) *
         static_cast<size_t>(max_segments) * (static_cast<size_t>(head_dim) + 2) * sizeof(float);
}

struct Attention {
  int num_heads = 0;
  int num_kv_heads = 0;         // num_heads / num_kv_heads at most 16
  int head_dim = 0;             // 32, 64, 128, 256 or 512
  int window = 0;               // 0: every key up to the row's last
  const uint16_t* q = nullptr;  // [num_rows, num_heads, head_dim] BF16
  KvLayer kv;                   // holds the keys of these rows already
  KvTable places;
  // [num_rows][num_heads][max_segments] of head_dim sums, then as many maxima and totals.
  float* workspace = nullptr;
  int max_segments = 0;  // at least what the longest row needs (traps otherwise); 1 with a window
  Operand out;           // [num_rows, num_heads * head_dim], the operand of o_proj
};

// out[r] = softmax(q[r] K^T) V over positions max(0, last_keys[r] - window + 1) .. last_keys[r] of
// the row's sequence. Zeros for padding rows and where last_keys[r] < 0. Every other row belongs to
// one tile. A row's bits depend on neither the other rows, nor the tiles, nor max_segments. Slots
// that no row of a tile sees may hold anything, as may their entries of the block table; those
// another row of the tile sees must hold finite values.
void attention(const Stream& stream, const Rows& rows, const QueryTiles& tiles,
               const Attention& job);

}  // namespace tandem::ops::cuda
