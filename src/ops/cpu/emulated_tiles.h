// The tile unit in AVX-512, for tests on machines without AMX: TDPBF16PS as Intel's manual (SDM,
// volume 2) defines it. A product adds the even elements of its 32 in order to a sum that starts at
// zero, the odd ones to another, by fused multiply-adds; then both together to the tile. Denormal
// inputs and results are zero.
#pragma once

#include "ops/cpu/tiles_widen.h"

#if defined(__AVX512F__)
namespace tandem::ops::cpu::avx512 {

class EmulatedTiles {
 public:
  explicit EmulatedTiles(int64_t width) : row_bytes_(width * 4) {}

  static TANDEM_INLINE Widened widen(__m512i bytes) { return widen_by_words(bytes); }

  template <int kTile>
  void zero() {
    __builtin_memset(tiles_[kTile], 0, sizeof(tiles_[kTile]));
  }
  template <int kTile>
  void load(const void* from, int64_t stride_bytes) {
    zero<kTile>();
    for (int64_t row = 0; row < 16; ++row)
      __builtin_memcpy(tiles_[kTile][row], static_cast<const char*>(from) + row * stride_bytes,
                       static_cast<size_t>(bytes_of(kTile)));
  }
  template <int kTile>
  void store(void* to, int64_t stride_bytes) const {
    for (int64_t row = 0; row < 16; ++row)
      __builtin_memcpy(static_cast<char*>(to) + row * stride_bytes, tiles_[kTile][row],
                       static_cast<size_t>(bytes_of(kTile)));
  }
  template <int kSums, int kOuts, int kRows>
  void dot() {
    constexpr unsigned kFlushToZero = 0x8000;
    constexpr unsigned kDenormalsAreZero = 0x0040;
    const unsigned control = _mm_getcsr();
    _mm_setcsr(control | kFlushToZero | kDenormalsAreZero);
    for (int m = 0; m < 16; ++m) {
      __m512 even = _mm512_setzero_ps();
      __m512 odd = _mm512_setzero_ps();
      for (int k = 0; k < 16; ++k) {
        const __m512i a = _mm512_set1_epi32(static_cast<int32_t>(tiles_[kOuts][m][k]));
        const __m512i b = _mm512_load_si512(tiles_[kRows][k]);
        even = _mm512_fmadd_ps(low(a), low(b), even);
        odd = _mm512_fmadd_ps(high(a), high(b), odd);
      }
      const __m512 sum = _mm512_load_ps(tiles_[kSums][m]);
      _mm512_store_ps(tiles_[kSums][m], _mm512_add_ps(sum, _mm512_add_ps(even, odd)));
    }
    _mm_setcsr(control);
  }

 private:
  static __m512 low(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
  static __m512 high(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(~0xffff)));
  }
  int64_t bytes_of(int tile) const { return tile == 4 || tile == 5 ? 64 : row_bytes_; }

  int64_t row_bytes_;
  alignas(64) uint32_t tiles_[8][16][16] = {};
};

}  // namespace tandem::ops::cpu::avx512
#endif
