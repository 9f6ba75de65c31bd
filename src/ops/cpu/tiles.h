// Linear on a unit that multiplies matrix tiles: what its kernels read, beyond a LinearJob. A tile
// of sums has 16 outputs and up to 16 rows. One product adds 32 elements of each: the weights are
// the left factor as they lie in memory, the rows of x are the right one, packed as the unit wants
// it.
#pragma once

#include <cstdint>

namespace tandem::ops::cpu {

struct LinearJob;

inline constexpr int64_t kTileOuts = 16;
inline constexpr int64_t kTileRows = 16;   // at most
inline constexpr int64_t kTileDepth = 32;  // elements of one product
inline constexpr int64_t kTileSums = kTileOuts * kTileRows;
// Outputs are taken in groups of two tiles, and given to threads so.
inline constexpr int64_t kTileGroup = 2 * kTileOuts;
// Beyond two tiles of rows a panel of weights is decoded once: 32 outputs, this many elements,
// which stay in the L1 cache.
inline constexpr int64_t kTilePanelDepth = 512;

// Which elements a product takes. BF16 weights lie ready: 32 neighbours. FP8 ones are widened 64 at
// a time, and the upper and lower halves of words come together eight by eight: of each 64, one
// product takes those whose number has bit 3 clear, and the next one the others.
enum class TileOrder { kNeighbours, kEights };

constexpr int64_t tile_products(int64_t in, TileOrder order) {
  const int64_t step = order == TileOrder::kEights ? 2 : 1;
  return (in + step * kTileDepth - 1) / (step * kTileDepth) * step;
}

// x as BF16, in tiles of rows of one width: a row stands in one column of its tile.
struct TileRows {
  uint32_t* pairs = nullptr;  // [num_tiles, num_products, 16, width] pairs that meet in a product
  int64_t num_tiles = 0;
  int64_t width = 0;
  int64_t num_products = 0;
  TileOrder order = TileOrder::kNeighbours;
};

constexpr TileRows tile_rows(uint32_t* pairs, int64_t n, int64_t in, TileOrder order) {
  const int64_t num_tiles = (n + kTileRows - 1) / kTileRows;
  return {pairs, num_tiles, (n + num_tiles - 1) / num_tiles, tile_products(in, order), order};
}

// Pairs of one row tile and one product.
constexpr int64_t tile_pairs(const TileRows& rows) {
  return kTileDepth / 2 * rows.width;
}

// Floats of scratch that linear_tiles needs: the panel, every tile of sums twice (block scales add
// scaled sums to totals).
constexpr int64_t tiles_scratch(int64_t num_tiles) {
  return kTileGroup * kTilePanelDepth / 2 + (num_tiles + 1) / 2 * 2 * 4 * kTileSums;
}

namespace avx512 {
// Row tiles' products [begin, end) of rows.pairs, in its order, from x [n, depth], depth a multiple
// of 32; zeros where a tile has no row or x no element.
void pack_tiles(const float* x, int64_t depth, int64_t n, const TileRows& rows, int64_t begin,
                int64_t end);
// Both: outputs [begin, end); begin is a multiple of kTileGroup. The second does with AVX-512 what
// the first does on AMX, with the same bits, and shows on every machine that the tiling is right.
void linear_amx(const LinearJob& job, int64_t begin, int64_t end, float* scratch);
void linear_emulated(const LinearJob& job, int64_t begin, int64_t end, float* scratch);
// How each widens 64 FP8 bytes, for tests: words [2, 32] of the two products.
void widen_amx(const uint8_t* bytes, uint16_t* words);
void widen_emulated(const uint8_t* bytes, uint16_t* words);
}  // namespace avx512

}  // namespace tandem::ops::cpu
