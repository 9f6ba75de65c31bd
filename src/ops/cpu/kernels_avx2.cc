// The table of kernels for AVX2, FMA and F16C.
#include "ops/cpu/kernels_avx2.h"

#include "ops/cpu/argmax_kernel.h"
#include "ops/cpu/rows_kernel.h"

namespace tandem::ops::cpu::avx2 {

const Kernels kKernels = {
    .prepare_rows = prepare_rows,
    .linear = linear_entry,
    .linear_tiles = nullptr,
    .rms_norm = rms_norm,
    .add_rms_norm = add_rms_norm,
    .gelu_mul = gelu_mul,
    .softcap = softcap,
    .copy_row = copy_row,
    .rope = rope,
    .store_fp8 = store_fp8,
    .attention = attention_entry,
    .argmax = argmax,
};

}  // namespace tandem::ops::cpu::avx2
