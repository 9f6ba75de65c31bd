// Linear for AVX2, FMA and F16C.
#include "ops/cpu/kernels_avx2.h"
#include "ops/cpu/linear_kernel.h"

namespace tandem::ops::cpu::avx2 {

void linear_entry(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  linear(job, begin, end, scratch);
}

}  // namespace tandem::ops::cpu::avx2
