// The kernels of one instruction set, as plain functions over plain structs: no header with inline
// functions of the rest of the program may reach the files that are compiled with wider registers.
#pragma once

#include <cstdint>

#include "ops/cpu/tiles.h"

namespace tandem::ops::cpu {

inline constexpr int64_t kLanes = 16;  // of a Vec

// Scratch rows are padded with zeros to two Vecs: dot products with narrow elements take 32 at a
// time.
constexpr int64_t padded(int64_t length) {
  return (length + 2 * kLanes - 1) / (2 * kLanes) * (2 * kLanes);
}

// Rows of F32 or BF16 activations.
struct Rows {
  void* data = nullptr;
  int64_t stride = 0;  // elements
  bool bf16 = false;
};

enum class Element { kF32, kBF16, kFp8 };

// The order of a dot product's prepared operand: as it is, or each 32 elements as their 16 even
// ones and their 16 odd ones (vec.h says why).
constexpr int halves_of(Element element) {
  return element == Element::kF32 ? 1 : 2;
}

// One weight and prepared x: y[r][o] = scale_o * row_scales[r] * sum_i w[o][i] x[r][i].
struct LinearJob {
  Element element = Element::kBF16;
  const void* weight = nullptr;  // [out, in]
  int64_t weight_stride = 0;     // elements
  int64_t out = 0;
  int64_t in = 0;
  const float* x = nullptr;  // [n, padded(in)] in the order of halves_of(element)
  TileRows tiles;            // linear_tiles takes x from here
  int64_t n = 0;
  const float* row_scales = nullptr;      // [n]; input scales, 1 without quantization
  float scale = 1.0F;                     // kFp8Tensor
  const float* channel_scales = nullptr;  // [out]; kFp8Channel
  const float* block_scales = nullptr;    // [out / 128, in / 128]; kFp8Block
  int64_t block_stride = 0;
  Rows y;  // [n, out]
};

// Outputs are given to threads in tiles of this size.
inline constexpr int64_t kOutTile = 8;
// Up to so many rows weights are decoded in registers; beyond, into a panel.
inline constexpr int64_t kMaxDirectRows = 6;

// A small panel stays in the L1 cache, which its writing needs. With many rows a large one in the
// L2 cache is better: all of x is read once for each.
struct PanelShape {
  int64_t outs, depth;
};
constexpr PanelShape panel_shape(int64_t n) {
  return n <= 24 ? PanelShape{8, 512} : PanelShape{32, 1024};
}

// Floats of scratch that linear needs: the panel, and the lanes of its sums.
constexpr int64_t linear_scratch(int64_t n) {
  return n > kMaxDirectRows ? panel_shape(n).outs * (panel_shape(n).depth + n * kLanes) : 0;
}

enum class Quantize { kNone, kStatic, kPerToken };

// What attention reads and writes; see ops/attention.h.
struct AttentionJob {
  Element element = Element::kBF16;
  const void* k = nullptr;  // [num_slots, num_kv_heads, head_dim]
  const void* v = nullptr;
  int64_t k_stride = 0;  // elements between slots
  int64_t v_stride = 0;
  float k_scale = 1.0F;
  float v_scale = 1.0F;
  int64_t head_dim = 0;
  int64_t group = 0;  // query heads per KV head
  Rows q;             // [n, num_heads * head_dim]
  Rows out;
  const int32_t* sequences = nullptr;  // [n]
  const int32_t* last_keys = nullptr;  // [n]
  int64_t window = 0;
  const int32_t* block_table = nullptr;
  int64_t max_blocks = 0;
  int64_t block_size = 0;
  int64_t ring_len = 0;
};

// Rows of one sequence and some query heads of one KV head.
struct AttentionItem {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t kv_head = 0;
  int64_t head_begin = 0;  // within the group
  int64_t head_end = 0;
};

// Keys are taken in blocks of this many absolute positions.
inline constexpr int64_t kKeyBlock = 32;

// Floats of scratch for an item of so many (row, head) pairs: q, sums, weights, maximum, total.
constexpr int64_t attention_scratch(int64_t pairs, int64_t head_dim) {
  return pairs * (2 * padded(head_dim) + kKeyBlock + 3);
}

struct ArgmaxResult {
  int32_t token = -1;
  bool finite = true;
};

struct Kernels {
  // Rows [begin, end) as floats in the order of `halves`, padded with zeros; quantized to E4M3
  // values if asked. Writes row_scales (input_scale, or each row's own).
  void (*prepare_rows)(const Rows& x, int64_t cols, int halves, Quantize quantize,
                       float input_scale, int64_t begin, int64_t end, float* out,
                       float* row_scales);
  // Outputs [begin, end); begin is a multiple of kOutTile. scratch: linear_scratch(n) floats.
  void (*linear)(const LinearJob& job, int64_t begin, int64_t end, float* scratch);
  // The same on a tile unit (tiles.h), null without one: for x that BF16 holds.
  void (*linear_tiles)(const LinearJob& job, int64_t begin, int64_t end, float* scratch);
  void (*rms_norm)(const Rows& x, const Rows& weight, float eps, int64_t dim, int64_t begin,
                   int64_t end, const Rows& out);
  void (*add_rms_norm)(const Rows& branch, const Rows& weight, float eps, float scale, int64_t dim,
                       int64_t begin, int64_t end, const Rows& residual);
  // Element-wise: one row's columns [begin, end).
  void (*gelu_mul)(const Rows& gate, const Rows& up, const Rows& out, int64_t row, int64_t begin,
                   int64_t end);
  void (*softcap)(float cap, float* row, int64_t begin, int64_t end);
  // to[to_row] = from[from_row] * scale.
  void (*copy_row)(const Rows& from, int64_t from_row, float scale, const Rows& to, int64_t to_row,
                   int64_t cols);
  // x [heads, dim], one row; cos, sin [dim / 2].
  void (*rope)(const float* cos, const float* sin, const Rows& x, int64_t row, int64_t heads,
               int64_t dim);
  // to[i] = E4M3 of from[row][i] / scale.
  void (*store_fp8)(const Rows& from, int64_t row, float scale, uint8_t* to, int64_t cols);
  void (*attention)(const AttentionJob& job, const AttentionItem& item, float* scratch);
  // The largest of row[begin, end), the first among equals; -inf is no candidate.
  ArgmaxResult (*argmax)(const float* row, int64_t begin, int64_t end);
};

namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

// The table of isa() (ops/cpu/isa.h); not for Isa::kReference.
const Kernels& kernels();

}  // namespace tandem::ops::cpu
