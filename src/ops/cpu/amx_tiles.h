// The tile unit itself: AMX-BF16. Plain assembly, because the intrinsics of GCC 12 hide from the
// compiler which memory they read (what was stored just before may never be).
#pragma once

#include <cstdint>

#include "ops/cpu/tiles_widen.h"

#if defined(__GFNI__) && defined(__AVX512VBMI__)
namespace tandem::ops::cpu::avx512 {

class AmxTiles {
 public:
  explicit AmxTiles(int64_t width) {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t num_rows[16] = {};
    } config;
    static_assert(sizeof(config) == 64);
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = tile == 4 || tile == 5 ? 64 : static_cast<uint16_t>(width * 4);
      config.num_rows[tile] = 16;
    }
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  // The system need not save tiles that are in their first state.
  ~AmxTiles() { asm volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  static TANDEM_INLINE Widened widen(__m512i bytes) { return widen_by_bytes(bytes); }

  // %c: the number as it is, without a sign of a constant.
  template <int kTile>
  __attribute__((always_inline)) void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  template <int kTile>
  __attribute__((always_inline)) void load(const void* from, int64_t stride_bytes) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0"
                 :
                 : "i"(kTile), "r"(from), "r"(stride_bytes)
                 : "memory");
  }
  template <int kTile>
  __attribute__((always_inline)) void store(void* to, int64_t stride_bytes) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)"
                 :
                 : "i"(kTile), "r"(to), "r"(stride_bytes)
                 : "memory");
  }
  template <int kSums, int kOuts, int kRows>
  __attribute__((always_inline)) void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kOuts), "i"(kRows));
  }
};

}  // namespace tandem::ops::cpu::avx512
#endif
