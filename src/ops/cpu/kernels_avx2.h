// The large kernels for AVX2, FMA and F16C, one file each.
#pragma once

#include "ops/cpu/kernels.h"

namespace tandem::ops::cpu::avx2 {

void linear_entry(const LinearJob& job, int64_t begin, int64_t end, float* scratch);
void attention_entry(const AttentionJob& job, const AttentionItem& item, float* scratch);

}  // namespace tandem::ops::cpu::avx2
