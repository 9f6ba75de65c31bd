// Linear on the emulated tile unit, and what both units share.
#include "ops/cpu/emulated_tiles.h"
#include "ops/cpu/tiles_kernel.h"

namespace tandem::ops::cpu::avx512 {

// The values are BF16 already: the upper half of each float is all there is.
void pack_tiles(const float* x, int64_t depth, int64_t n, const TileRows& rows, int64_t begin,
                int64_t end) {
  const int64_t products = depth / kTileDepth;
  // The upper words of 32 floats.
  alignas(64) uint16_t upper[kTileDepth];
  for (int i = 0; i < kTileDepth; ++i) upper[i] = static_cast<uint16_t>(2 * i + 1);
  const __m512i index = _mm512_load_si512(upper);
  for (int64_t item = begin; item < end; ++item) {
    uint32_t* const to = rows.pairs + item * tile_pairs(rows);
    const int64_t first = item / products * rows.width;
    for (int64_t r = 0; r < rows.width; ++r) {
      alignas(64) uint32_t pairs[kTileDepth / 2] = {};
      if (first + r < n) {
        const float* const from = x + (first + r) * depth + item % products * kTileDepth;
        _mm512_store_si512(pairs, _mm512_permutex2var_epi16(_mm512_loadu_si512(from), index,
                                                            _mm512_loadu_si512(from + kLanes)));
      }
      for (int64_t k = 0; k < kTileDepth / 2; ++k) to[k * rows.width + r] = pairs[k];
    }
  }
}

void linear_emulated(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  linear_on<EmulatedTiles>(job, begin, end, scratch);
}

}  // namespace tandem::ops::cpu::avx512
