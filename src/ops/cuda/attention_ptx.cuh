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

#define TANDEM_WGMMA_ONES(type, ones, n, names, at0, at1, at2, ...)                      \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " at1                                   \
               ", 0;\n"                                                                  \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32." type "." type " {" names \
               "}, {" at2 ", " at2 ", " at2 ", " at2 "}, " at0 ", p, 1, 1, 0;\n}"        \
               : __VA_ARGS__                                                             \
               : "l"(b), "r"(add), "r"(ones)                                             \
               : "memory");
// d = a b, or d += a b with `add`: 64 x 16 by 16 x (2 * registers). b has the summed dimension
// contiguous. BF16, a with kRows the other one; or FP16, a in registers.
#define TANDEM_WGMMA_PAIRS(count, n, names, outputs, at0, at1, at2, at3, at4, at5)                \
  template <int kRows>                                                                            \
  __device__ inline void wgmma_pairs(float(&d)[count], uint64_t a, uint64_t b, int add) {         \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " at2                                          \
                 ", 0;\n"                                                                         \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, " at0      \
                 ", " at1 ", p, 1, 1, " at3 ", 0;\n}"                                             \
                 : outputs                                                                        \
                 : "l"(a), "l"(b), "r"(add), "n"(kRows)                                           \
                 : "memory");                                                                     \
  }                                                                                               \
  /* Every row of d: the sums of b's columns, or added to them. */                                \
  template <bool kFp16>                                                                           \
  __device__ inline void wgmma_ones(float(&d)[count], uint64_t b, int add) {                      \
    if constexpr (kFp16)                                                                          \
      TANDEM_WGMMA_ONES("f16", 0x3c003c00, n, names, at0, at1, at2, outputs)                      \
    else                                                                                          \
      TANDEM_WGMMA_ONES("bf16", 0x3f803f80, n, names, at0, at1, at2, outputs)                     \
  }                                                                                               \
  __device__ inline void wgmma_pairs_f16(float(&d)[count], const uint4& a, uint64_t b, int add) { \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " at5                                          \
                 ", 0;\n"                                                                         \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.f16.f16 {" names "}, {" at0       \
                 ", " at1 ", " at2 ", " at3 "}, " at4 ", p, 1, 1, 0;\n}"                          \
                 : outputs                                                                        \
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(add)                       \
                 : "memory");                                                                     \
  }
TANDEM_WGMMA_PAIRS(4, "8", TANDEM_NAMES4, TANDEM_D4(d), "%4", "%5", "%6", "%7", "%8", "%9")
TANDEM_WGMMA_PAIRS(8, "16", TANDEM_NAMES8, TANDEM_D8(d, 0), "%8", "%9", "%10", "%11", "%12", "%13")
TANDEM_WGMMA_PAIRS(12, "24", TANDEM_NAMES12, TANDEM_D12(d), "%12", "%13", "%14", "%15", "%16",
                   "%17")
TANDEM_WGMMA_PAIRS(24, "48", TANDEM_NAMES24, TANDEM_D24(d), "%24", "%25", "%26", "%27", "%28",
                   "%29")

#undef TANDEM_WGMMA_PAIRS
#undef TANDEM_WGMMA_ONES
#undef TANDEM_NAMES24
#undef TANDEM_NAMES12
#undef TANDEM_NAMES8
#undef TANDEM_D24
#undef TANDEM_D12
#undef TANDEM_D8
#undef TANDEM_NAMES4
#undef TANDEM_D4
#endif

// Four E4M3 values as FP16, which holds each of them: bytes 0 and 1, and 2 and 3.
__device__ inline uint2 widen_neighbours(uint32_t codes) {
  uint2 wide;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "mov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, low;\n"
      "cvt.rn.f16x2.e4m3x2 %1, high;\n"
      "}"
      : "=r"(wide.x), "=r"(wide.y)
      : "r"(codes));
  return wide;
}
// Bytes 0 and 2, and 1 and 3.
__device__ inline uint2 widen_alternate(uint32_t codes) {
  return widen_neighbours(__byte_perm(codes, 0, 0x3120));
}
// Two values in FP16, saturated.
__device__ inline uint32_t f16x2(float low, float high) {
  constexpr float kMost = 65504.0F;
  uint32_t two;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;"
      : "=r"(two)
      : "f"(fmaxf(fminf(high, kMost), -kMost)), "f"(fmaxf(fminf(low, kMost), -kMost)));
  return two;
}

// threadIdx.x, as a value that the compiler knows nothing of.
__device__ inline int thread_now() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

// Fetches the 128 bytes around an address into L2.
__device__ inline void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

}  // namespace tandem::ops::cuda::ptx
