// Linear on AMX-BF16. Around it AVX-512 F, BW, DQ, VL and VBMI, and GFNI, which all CPUs with AMX
// have.
#include "ops/cpu/amx_tiles.h"
#include "ops/cpu/tiles_kernel.h"

namespace tandem::ops::cpu::avx512 {

void linear_amx(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  linear_on<AmxTiles>(job, begin, end, scratch);
}

void widen_amx(const uint8_t* bytes, uint16_t* words) {
  const Widened widened = AmxTiles::widen(_mm512_loadu_si512(bytes));
  _mm512_storeu_si512(words, widened.first);
  _mm512_storeu_si512(words + kTileDepth, widened.second);
}

}  // namespace tandem::ops::cpu::avx512
