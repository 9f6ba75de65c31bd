// Attention for AVX-512 F, BW, DQ and VL.
#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/kernels_avx512.h"

namespace tandem::ops::cpu::avx512 {

void attention_entry(const AttentionJob& job, const AttentionItem& item, float* scratch) {
  attention(job, item, scratch);
}

}  // namespace tandem::ops::cpu::avx512
