// The large kernels for AVX-512 F, BW, DQ and VL, one file each.
#pragma once

#include "ops/cpu/kernels.h"

namespace tandem::ops::cpu::avx512 {

void linear_entry(const LinearJob& job, int64_t begin, int64_t end, float* scratch);
void attention_entry(const AttentionJob& job, const AttentionItem& item, float* scratch);

}  // namespace tandem::ops::cpu::avx512
