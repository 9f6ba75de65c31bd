// Attention for AVX2, FMA and F16C.
#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/kernels_avx2.h"

namespace tandem::ops::cpu::avx2 {

void attention_entry(const AttentionJob& job, const AttentionItem& item, float* scratch) {
  attention(job, item, scratch);
}

}  // namespace tandem::ops::cpu::avx2
