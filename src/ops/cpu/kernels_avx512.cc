// The table of kernels for AVX-512 F, BW, DQ and VL.
#include "ops/cpu/kernels_avx512.h"

#include "ops/cpu/argmax_kernel.h"
#include "ops/cpu/rows_kernel.h"

namespace tandem::ops::cpu::avx512 {

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

}  // namespace tandem::ops::cpu::avx512
