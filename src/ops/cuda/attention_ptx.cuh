// Products of a warpgroup for attention of few rows: 64 keys, or 64 columns of the values, by as
// many pairs of row and head as there are (PTX ISA 9.0).
#pragma once

#include <cstdint>

#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::ptx {

#ifndef TANDEM_WARP_PRODUCTS
#define TANDEM_D4(d) "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define TANDEM_NAMES4 "%0, %1, %2, %3"
#define TANDEM_D8(d, i)                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define TANDEM_D12(d) TANDEM_D8(d, 0), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11])
#define TANDEM_D24(d) TANDEM_D8(d, 0), TANDEM_D8(d, 8), TANDEM_D8(d, 16)
#define TANDEM_NAMES8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define TANDEM_NAMES12 TANDEM_NAMES8 ", %8, %9, %10, %11"
#define TANDEM_NAMES24 TANDEM_NAMES12 ", %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23"

// d = a b, or d += a b with `add`: BF16, 64 x 16 by 16 x (2 * registers). b has the summed
// dimension contiguous, a with kRows the other one.
#define TANDEM_WGMMA_PAIRS(count, n, names, outputs, a_at, b_at, add_at, rows_at)                \
  template <int kRows>                                                                           \
  __device__ inline void wgmma_pairs(float(&d)[count], uint64_t a, uint64_t b, int add) {        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add_at                                      \
                 ", 0;\n"                                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, " a_at    \
                 ", " b_at ", p, 1, 1, " rows_at ", 0;\n}"                                       \
                 : outputs                                                                       \
                 : "l"(a), "l"(b), "r"(add), "n"(kRows)                                          \
                 : "memory");                                                                    \
  }                                                                                              \
  /* Every row of d: the sums of b's columns, or added to them. */                               \
  __device__ inline void wgmma_ones(float(&d)[count], uint64_t b, int add) {                     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " b_at                                        \
                 ", 0;\n"                                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, {" add_at \
                 ", " add_at ", " add_at ", " add_at "}, " a_at ", p, 1, 1, 0;\n}"               \
                 : outputs                                                                       \
                 : "l"(b), "r"(add), "r"(0x3f803f80)                                             \
                 : "memory");                                                                    \
  }
TANDEM_WGMMA_PAIRS(4, "8", TANDEM_NAMES4, TANDEM_D4(d), "%4", "%5", "%6", "%7")
TANDEM_WGMMA_PAIRS(8, "16", TANDEM_NAMES8, TANDEM_D8(d, 0), "%8", "%9", "%10", "%11")
TANDEM_WGMMA_PAIRS(12, "24", TANDEM_NAMES12, TANDEM_D12(d), "%12", "%13", "%14", "%15")
TANDEM_WGMMA_PAIRS(24, "48", TANDEM_NAMES24, TANDEM_D24(d), "%24", "%25", "%26", "%27")

#undef TANDEM_WGMMA_PAIRS
#undef TANDEM_NAMES24
#undef TANDEM_NAMES12
#undef TANDEM_NAMES8
#undef TANDEM_D24
#undef TANDEM_D12
#undef TANDEM_D8
#undef TANDEM_NAMES4
#undef TANDEM_D4
#endif

// Four E4M3 values as BF16, which holds each of them: their bits in the middle of its exponent and
// mantissa, beside the sign, times 2^120. NaN becomes +-480: a cache has none.
__device__ inline uint2 widen_numbers(uint32_t codes) {
  const auto two = [](uint32_t bytes) {  // each with its sign extended to 16 bits
    uint32_t wide;
    asm("mul.rn.bf16x2 %0, %1, %2;"
        : "=r"(wide)
        : "r"((bytes << 4) & 0x87f087f0U), "r"(0x7b807b80U));
    return wide;
  };
  uint32_t low;
  uint32_t high;
  asm("prmt.b32 %0, %1, 0, 0x9180;" : "=r"(low) : "r"(codes));
  asm("prmt.b32 %0, %1, 0, 0xb3a2;" : "=r"(high) : "r"(codes));
  return {two(low), two(high)};
}

// Starts copying 4 bytes to shared memory.
__device__ inline void copy_async_4(uint32_t target, const void* source) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(target), "l"(source) : "memory");
}
__device__ inline int load_shared_int(uint32_t address) {
  int value;
  asm volatile("ld.shared.s32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}

// Fetches the 128 bytes around an address into L2.
__device__ inline void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

}  // namespace tandem::ops::cuda::ptx
