// Linear on the emulated tile unit, and what both units share.
#include "ops/cpu/emulated_tiles.h"
#include "ops/cpu/tiles_kernel.h"

namespace tandem::ops::cpu::avx512 {

namespace {

// The floats of one product, from `at` on as TileOrder says, zeros from depth on. Depth is a
// multiple of 32, so of every 32 there are all or none.
TANDEM_INLINE void load_product(const float* x, int64_t depth, TileOrder order, int64_t product,
                                __m512& first, __m512& second) {
  if (order == TileOrder::kNeighbours) {
    first = _mm512_loadu_ps(x + product * kTileDepth);
    second = _mm512_loadu_ps(x + product * kTileDepth + kLanes);
    return;
  }
  const int64_t block = product / 2 * 2 * kTileDepth;
  const float* const from = x + block + product % 2 * 8;
  const auto eights = [&](int64_t at) TANDEM_LAMBDA {
    return block + at >= depth
               ? _mm512_setzero_ps()
               : _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(from + at)),
                                    _mm256_loadu_ps(from + at + 16), 1);
  };
  first = eights(0);
  second = eights(kTileDepth);
}

}  // namespace

// The values are BF16 already: the upper half of each float is all there is.
void pack_tiles(const float* x, int64_t depth, int64_t n, const TileRows& rows, int64_t begin,
                int64_t end) {
  // The upper words of 32 floats.
  alignas(64) uint16_t upper[kTileDepth];
  for (int i = 0; i < kTileDepth; ++i) upper[i] = static_cast<uint16_t>(2 * i + 1);
  const __m512i index = _mm512_load_si512(upper);
  for (int64_t item = begin; item < end; ++item) {
    uint32_t* const to = rows.pairs + item * tile_pairs(rows);
    const int64_t first = item / rows.num_products * rows.width;
    for (int64_t r = 0; r < rows.width; ++r) {
      alignas(64) uint32_t pairs[kTileDepth / 2] = {};
      if (first + r < n) {
        __m512 low;
        __m512 high;
        load_product(x + (first + r) * depth, depth, rows.order, item % rows.num_products, low,
                     high);
        _mm512_store_si512(pairs, _mm512_permutex2var_epi16(_mm512_castps_si512(low), index,
                                                            _mm512_castps_si512(high)));
      }
      for (int64_t k = 0; k < kTileDepth / 2; ++k) to[k * rows.width + r] = pairs[k];
    }
  }
}

void linear_emulated(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  linear_on<EmulatedTiles>(job, begin, end, scratch);
}

void widen_emulated(const uint8_t* bytes, uint16_t* words) {
  const Widened widened = EmulatedTiles::widen(_mm512_loadu_si512(bytes));
  _mm512_storeu_si512(words, widened.first);
  _mm512_storeu_si512(words + kTileDepth, widened.second);
}

}  // namespace tandem::ops::cpu::avx512
