// y = x W^T on tiles. `Tiles` is the unit: eight registers, 0 to 3 for sums, 4 and 5 for the two
// tiles of outputs, 6 and 7 for two tiles of rows. A sum takes 32 elements at a time in order,
// inside as the unit does (emulated_tiles.h says how), so its bits depend on its own two vectors
// only.
#pragma once

#include "ops/cpu/linear_tiles.h"
#include "ops/cpu/rows_kernel.h"
#include "ops/cpu/tiles_group.h"

#if defined(__AVX512F__)
namespace tandem::ops::cpu::avx512 {

// sums += weights x for kOuts tiles of outputs and kRows tiles of rows. Loads, products and the
// widening of FP8 weights, two pairs of products ahead, take turns as the core can start them.
template <typename E, int kOuts, int kRows, typename Tiles>
void multiply(const LinearJob& job, TileGroup& group, Stager<Tiles>& stager, Tiles& tiles,
              int64_t row_tile, const Products& products) {
  constexpr bool kFp8 = sizeof(typename E::Storage) == 1;
  const int64_t row_bytes = job.tiles.width * 4;
  for_tile<kOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA {
    if (products.fresh)
      tiles.template zero<2 * o + r>();
    else
      tiles.template load<2 * o + r>(group.sums_of(row_tile + r, o), row_bytes);
  });
  const int64_t tile_size = job.tiles.num_products * tile_pairs(job.tiles);
  const uint32_t* x =
      job.tiles.pairs + row_tile * tile_size + products.begin * tile_pairs(job.tiles);
  for (int64_t k = products.begin; k < products.end; ++k, x += tile_pairs(job.tiles)) {
    if (products.in_panel) {
      if (row_tile == 0) fetch_panel<E, kOuts>(job, group, products, k);
    } else if constexpr (!kFp8) {
      fetch_ahead<E, kOuts>(job, group, k);
      stage_ahead<kOuts>(job, group, k);
    }
    load_weights<E, 4>(job, group, tiles, products, k, 0);
    unroll<kRows>([&](auto r) TANDEM_LAMBDA {
      fetch_rows(job, x + r * tile_size);
      tiles.template load<6 + r>(x + r * tile_size, row_bytes);
      tiles.template dot<r, 4, 6 + r>();
      if constexpr (kFp8 && r == 0)
        if (!products.in_panel) stager.quarter();
      if constexpr (kOuts == 2) {
        if constexpr (r == 0) load_weights<E, 5>(job, group, tiles, products, k, 1);
        tiles.template dot<2 + r, 5, 6 + r>();
      }
    });
    if constexpr (kFp8)
      if (!products.in_panel) stager.quarter();
  }
  for_tile<kOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA {
    tiles.template store<2 * o + r>(group.sums_of(row_tile + r, o), row_bytes);
  });
}

// The FP8 block format: the sums of 128 elements are scaled, then added.
TANDEM_INLINE void add_scaled(const LinearJob& job, const TileGroup& group, int64_t begin) {
  const float scale = job.block_scales[group.first / kScaleBlock * job.block_stride +
                                       begin * kTileDepth / kScaleBlock];
  for (int64_t i = 0; i < job.tiles.num_tiles * 2 * kTileSums; i += kLanes) {
    const Vec before = begin == 0 ? zero() : load(group.totals + i);
    store(group.totals + i, fma(load(group.sums + i), set1(scale), before));
  }
}

// Scales the sums and stores the outputs that exist. fold: the power of two that the weight's
// element type leaves out.
TANDEM_INLINE void store_group(const LinearJob& job, const TileGroup& group, int64_t out_tiles,
                               float fold) {
  const float* const sums = job.block_scales == nullptr ? group.sums : group.totals;
  const auto width = static_cast<int32_t>(job.tiles.width);
  const __m512i lanes = _mm512_mullo_epi32(lane_index().v, _mm512_set1_epi32(width));
  for (int64_t o = 0; o < out_tiles; ++o) {
    const int64_t out = group.first + o * kTileOuts;
    const int count = static_cast<int>(job.out - out < kTileOuts ? job.out - out : kTileOuts);
    const Vec scales =
        mul(job.channel_scales == nullptr ? set1(job.scale) : load(job.channel_scales + out, count),
            set1(fold));
    for (int64_t row = 0; row < job.n; ++row) {
      const float* const from = sums + (row / width * 2 + o) * kTileSums + row % width;
      const Vec sum{_mm512_i32gather_ps(lanes, from, sizeof(float))};
      store_lanes(job.y, row, out, count, mul(sum, mul(set1(job.row_scales[row]), scales)));
    }
  }
}

template <typename E, int kOuts, typename Tiles>
void linear_group(const LinearJob& job, TileGroup& group, Stager<Tiles>& stager, Tiles& tiles) {
  const int64_t all = job.tiles.num_products;
  const bool blocks = job.block_scales != nullptr;
  const bool in_panel = job.tiles.num_tiles > 2;
  int64_t step = in_panel ? kTilePanelDepth / kTileDepth : all;
  if (blocks) step = kScaleBlock / kTileDepth;
  group.staged = 0;
  for (int64_t begin = 0; begin < all; begin += step) {
    const Products products{begin, begin + step < all ? begin + step : all, begin == 0 || blocks,
                            in_panel};
    if (in_panel)
      unroll<kOuts>([&](auto o) {
        stage_panel<E, Tiles>(job, group.first + o * kTileOuts, begin, products.end,
                              group.staged_tile(0, o));
      });
    for (int64_t tile = 0; tile < job.tiles.num_tiles; tile += 2) {
      if (tile + 1 < job.tiles.num_tiles)
        multiply<E, kOuts, 2>(job, group, stager, tiles, tile, products);
      else
        multiply<E, kOuts, 1>(job, group, stager, tiles, tile, products);
    }
    if (blocks) add_scaled(job, group, begin);
  }
  group.first_pair += all / 2;
  store_group(job, group, kOuts, E::kFold);
}

template <typename E, typename Tiles>
void linear_on_tiles(const LinearJob& job, int64_t begin, int64_t end, float* scratch,
                     Tiles& tiles) {
  TileGroup group;
  group.last = end;
  group.panel = reinterpret_cast<uint16_t*>(scratch);
  group.sums = scratch + kTileGroup * kTilePanelDepth / 2;
  group.totals = group.sums + (job.tiles.num_tiles + 1) / 2 * 2 * 2 * kTileSums;
  Stager<Tiles> stager(job, begin, end, group.panel);
  if (sizeof(typename E::Storage) == 1 && job.tiles.num_tiles <= 2)
    for (int i = 0; i < 2 * Stager<Tiles>::kQuarters; ++i) stager.quarter();
  for (group.first = begin; group.first < end; group.first += kTileGroup) {
    if (group.first + kTileOuts < end)
      linear_group<E, 2>(job, group, stager, tiles);
    else
      linear_group<E, 1>(job, group, stager, tiles);
  }
}

template <typename Tiles>
void linear_on(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  Tiles tiles(job.tiles.width);
  if (job.element == Element::kBF16)
    linear_on_tiles<Bf16Element>(job, begin, end, scratch, tiles);
  else
    linear_on_tiles<Fp8Element>(job, begin, end, scratch, tiles);
}

}  // namespace tandem::ops::cpu::avx512
#endif
