// Attention of the rows of a step over the KV cache, cut along the keys so that a few rows use the
// whole device: ops/attention.h, for keys and values of BF16 or E4M3.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/operand.cuh"
#include "ops/cuda/partials.cuh"
#include "ops/cuda/rows.h"

namespace tandem::ops::cuda {

// Keys are cut at multiples of this: where depends on positions alone, so a row's sums, which are
// taken over its segments in order, are the same whatever runs beside it.
constexpr int attention_segment_keys(int head_dim) {
  return head_dim == 512 ? 256 : 128;
}

// Segments that `num_keys` neighbouring positions can touch. A tile sees as many keys as its last
// row, and in a window up to kTileRows - 1 more.
constexpr int attention_max_segments(int head_dim, int64_t num_keys) {
  const int64_t keys = attention_segment_keys(head_dim);
  return static_cast<int>((num_keys + keys - 2) / keys + 1);
}

// Room for the partial results of one launch; attention() runs of one stream can share it.
constexpr size_t attention_workspace_bytes(int num_rows, int num_heads, int head_dim,
                                           int max_segments) {
  return static_cast<size_t>(num_rows) * static_cast<size_t>(num_heads) *
         static_cast<size_t>(max_segments) *
         (static_cast<size_t>(head_dim) * sizeof(uint16_t) + 2 * sizeof(float));
}

// Queries as their product left them: attention makes what head_prep() makes of them.
struct QuerySums {
  Partials sums;  // of [num_heads * head_dim] features
  float scale = 1.0F;
  float eps = 0.0F;
  const uint16_t* norm = nullptr;   // [head_dim] BF16
  const float* inv_freq = nullptr;  // [head_dim / 2] F32
};
// Whether attention() takes them.
constexpr bool attention_makes_queries(int head_dim, int group) {
  return head_dim <= 256 && group <= 8;
}

// Attention::query_scale for queries of heads with a norm whose largest weight is `norm_weight`: no
// such query saturates. The squares of a normed head come to head_dim, its weights aside, and the
// rotation turns two columns into one at most; a little is left for rounding.
inline float attention_query_scale(int head_dim, float norm_weight) {
  const float largest = std::sqrt(static_cast<float>(head_dim)) * norm_weight * 1.02F;
  if (!std::isfinite(largest) || largest <= 0) return 1.0F;
  return std::ldexp(1.0F, std::clamp(std::ilogb(448.0F / largest), -100, 100));
}

struct Attention {
  int num_heads = 0;
  int num_kv_heads = 0;         // num_heads / num_kv_heads at most 16
  int head_dim = 0;             // 32, 64, 128, 256 or 512
  int window = 0;               // 0: every key up to the row's last
  const uint16_t* q = nullptr;  // [num_rows, num_heads, head_dim] BF16
  QuerySums query_sums = {};    // instead of q, if sums.data
  // Over E4M3 a power of two: queries times it are sums of two E4M3 values, which have all bits of
  // a BF16 from 2^-6 to 448. Larger ones saturate.
  float query_scale = 1.0F;
  KvLayer kv;  // holds the keys of these rows already
  KvTable places;
  // What the segments of one launch leave (attention_job.cuh); attention_workspace_bytes().
  void* workspace = nullptr;
  // The keys of these rows themselves are written by the kernel before (a target), not long ago (an
  // assistant). With Rows::early_plan, all other keys are read before the wait.
  bool has_fresh_keys = true;
  // One integer, zero before the first launch; every launch leaves it so. With it thread blocks
  // that are ahead take the last items of long lists: their share of memory differs. At most one
  // launch at a time.
  int* next_item = nullptr;
  // attention_list_bytes() on the device, which list_attention() filled for these rows, tiles and
  // heads; complete when Rows::last_keys is. Null: every thread block works it out, 3 to 4 us.
  void* list = nullptr;
  int max_segments = 0;  // at least what the longest tile needs; a tile that needs more traps
  Operand out;           // [num_rows, num_heads * head_dim], the operand of o_proj
};

// out[r] = softmax(q[r] K^T) V over positions max(0, last_keys[r] - window + 1) .. last_keys[r] of
// the row's sequence. Zeros for padding rows and where last_keys[r] < 0. Every other row belongs to
// one tile. Values are at most 255, those of a head with a norm sqrt(head_dim): a segment's sums
// are FP16 on their way. A row's bits depend on neither the other rows, nor the tiles, nor
// max_segments. Slots that no row of a tile sees may hold anything, as may their entries of the
// block table; those another row of the tile sees must hold finite values.
void attention(const Stream& stream, const Rows& rows, const QueryTiles& tiles,
               const Attention& job);

// Fills job.list for attention() with the same rows, tiles, heads, window, max_segments, next_item
// and format of keys: layers that agree in these share it. The rows were complete, and job.list has
// no reader any more, before the first kernel that may still run.
size_t attention_list_bytes();
void list_attention(const Stream& stream, const Rows& rows, const QueryTiles& tiles,
                    const Attention& job);

}  // namespace tandem::ops::cuda
