// Linear for AVX-512 F, BW, DQ and VL.
#include "ops/cpu/kernels_avx512.h"
#include "ops/cpu/linear_kernel.h"

namespace tandem::ops::cpu::avx512 {

void linear_entry(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  linear(job, begin, end, scratch);
}

}  // namespace tandem::ops::cpu::avx512
