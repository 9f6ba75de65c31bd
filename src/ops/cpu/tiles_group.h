// What a group of outputs reads: weights, staged or where they lie, and rows, asked for before they
// are needed.
#pragma once

#include "ops/cpu/dot_tile.h"
#include "ops/cpu/tiles.h"
#include "ops/cpu/tiles_stage.h"

#if defined(__AVX512F__)
namespace tandem::ops::cpu::avx512 {

// One group of outputs: its tiles of sums are [row tile][output tile][16][width].
struct TileGroup {
  int64_t first;  // output
  int64_t last;   // output behind those of the job; what lies there is worth fetching early
  uint16_t* panel;
  float* sums;
  float* totals;           // with block scales
  int64_t staged = 0;      // BF16, without a panel: products of this group that were staged
  int64_t first_pair = 0;  // FP8, without a panel: pairs of products of earlier groups

  TANDEM_INLINE float* sums_of(int64_t row_tile, int64_t out_tile) const {
    return sums + (row_tile * 2 + out_tile) * kTileSums;
  }
  TANDEM_INLINE uint16_t* staged_tile(int64_t place, int64_t out_tile) const {
    return panel + (place * 2 + out_tile) * kTileWords;
  }
};

// Products [begin, end) of a group.
struct Products {
  int64_t begin, end;
  bool fresh;     // sums start at zero
  bool in_panel;  // their weights have been staged together
};

// Asks for weights some lines ahead of product k, of this group or of the next. FP8 ones are asked
// for as they are staged, one at a time: a whole column at once fills the core's queue.
template <typename E, int kOuts>
TANDEM_INLINE void fetch_ahead(const LinearJob& job, const TileGroup& group, int64_t k) {
  constexpr int64_t kSize = sizeof(typename E::Storage);
  constexpr int64_t kLine = 64 / kSize;
  constexpr int64_t kAhead = 8 * kLine;
  const int64_t at = k * kTileDepth;
  if (kSize == 1 || at % kLine != 0) return;
  const bool next = at + kAhead >= job.in;
  const int64_t column = next ? at + kAhead - job.in : at + kAhead;
  const int64_t out = next ? group.first + kTileGroup : group.first;
  if (out + kOuts * kTileOuts > group.last) return;
  const auto* from =
      static_cast<const typename E::Storage*>(job.weight) + out * job.weight_stride + column;
  for (int64_t o = 0; o < kOuts * kTileOuts; ++o, from += job.weight_stride)
    _mm_prefetch(reinterpret_cast<const char*>(from), _MM_HINT_T0);
}

// Asks for some rows of the panel after this one: all of them, over the products of this one.
template <typename E, int kOuts>
TANDEM_INLINE void fetch_panel(const LinearJob& job, const TileGroup& group,
                               const Products& products, int64_t k) {
  constexpr int64_t kSize = sizeof(typename E::Storage);
  const int64_t count = products.end - products.begin;
  const bool next = products.end * kTileDepth >= job.in;
  const int64_t column = next ? 0 : products.end * kTileDepth;
  const int64_t out = next ? group.first + kTileGroup : group.first;
  const int64_t length =
      job.in - column < count * kTileDepth ? job.in - column : count * kTileDepth;
  const int64_t rows = (kOuts * kTileOuts + count - 1) / count;
  for (int64_t i = (k - products.begin) * rows; i < (k - products.begin + 1) * rows; ++i) {
    if (i >= kOuts * kTileOuts || out + i >= group.last) return;
    const auto* const from =
        reinterpret_cast<const char*>(static_cast<const typename E::Storage*>(job.weight) +
                                      (out + i) * job.weight_stride + column);
    for (int64_t at = 0; at < length * kSize; at += 64) _mm_prefetch(from + at, _MM_HINT_T1);
  }
}

// Stages BF16 weights that do not lie ready, at least two products ahead of product k: a tile that
// was stored just before would hold up its own load.
template <int kOuts>
TANDEM_INLINE void stage_ahead(const LinearJob& job, TileGroup& group, int64_t k) {
  for (; group.staged <= k + 2 && group.staged < job.tiles.num_products; ++group.staged)
    unroll<kOuts>([&](auto o) TANDEM_LAMBDA {
      const int64_t out = group.first + o * kTileOuts;
      if (!lies_ready<Bf16Element>(job, out, group.staged))
        stage(job, out, group.staged, group.staged_tile(group.staged % kStagedProducts, o));
    });
}

// Where the weights of product k were staged.
template <typename E>
TANDEM_INLINE int64_t staged_place(const TileGroup& group, const Products& products, int64_t k) {
  if (products.in_panel) return k - products.begin;
  if constexpr (sizeof(typename E::Storage) == 2) return k % kStagedProducts;
  return (group.first_pair + k / 2) % kStagedPairs * 2 + k % 2;
}

// Tile o of the weights of product k.
template <typename E, int kTile, typename Tiles>
TANDEM_INLINE void load_weights(const LinearJob& job, const TileGroup& group, Tiles& tiles,
                                const Products& products, int64_t k, int64_t o) {
  const int64_t out = group.first + o * kTileOuts;
  if (!products.in_panel && lies_ready<E>(job, out, k)) {
    const auto* const from = static_cast<const typename E::Storage*>(job.weight) +
                             out * job.weight_stride + k * kTileDepth;
    tiles.template load<kTile>(from, job.weight_stride * 2);
    return;
  }
  tiles.template load<kTile>(group.staged_tile(staged_place<E>(group, products, k), o),
                             kTileDepth * 2);
}

// Rows of x come from the L2 cache: asks for them two products ahead.
TANDEM_INLINE void fetch_rows(const LinearJob& job, const uint32_t* x) {
  const uint32_t* const ahead = x + 2 * tile_pairs(job.tiles);
  for (int64_t line = 0; line < job.tiles.width; ++line)
    _mm_prefetch(reinterpret_cast<const char*>(ahead + line * 16), _MM_HINT_T0);
}

}  // namespace tandem::ops::cpu::avx512
#endif
