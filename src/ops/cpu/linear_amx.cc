// Linear on AMX-BF16, with AVX-512 F, BW, DQ and VL around it.
#include "ops/cpu/amx_tiles.h"
#include "ops/cpu/tiles_kernel.h"

namespace tandem::ops::cpu::avx512 {

void linear_amx(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  linear_on<AmxTiles>(job, begin, end, scratch);
}

}  // namespace tandem::ops::cpu::avx512
