// Products of a warpgroup for attention of few rows: 64 keys, or 64 columns of the values, by as
// many pairs of row and head as there are (PTX ISA 9.0).
#pragma once

#include <cstdint>

#include "ops/cuda/wgmma_operands.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::ptx {

#ifndef TANDEM_WARP_PRODUCTS
// d = a b, or d += a b with `add`: 64 x 16 by 16 x (2 * registers), BF16. b has the summed
// dimension contiguous, a with kRows the other one.
#define TANDEM_WGMMA_PAIRS(count, n, names, outputs, at0, at1, at2, at3)                      \
  template <int kRows>                                                                        \
  __device__ inline void wgmma_pairs(float(&d)[count], uint64_t a, uint64_t b, int add) {     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " at2                                      \
                 ", 0;\n"                                                                     \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, " at0  \
                 ", " at1 ", p, 1, 1, " at3 ", 0;\n}"                                         \
                 : outputs                                                                    \
                 : "l"(a), "l"(b), "r"(add), "n"(kRows)                                       \
                 : "memory");                                                                 \
  }                                                                                           \
  /* Every row of d: the sums of b's columns, or added to them. */                            \
  __device__ inline void wgmma_ones(float(&d)[count], uint64_t b, int add) {                  \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " at1                                      \
                 ", 0;\n"                                                                     \
                 "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, {" at2 \
                 ", " at2 ", " at2 ", " at2 "}, " at0 ", p, 1, 1, 0;\n}"                      \
                 : outputs                                                                    \
                 : "l"(b), "r"(add), "r"(0x3f803f80)                                          \
                 : "memory");                                                                 \
  }
TANDEM_WGMMA_PAIRS(4, "8", TANDEM_NAMES4, TANDEM_ACC4(d, 0), "%4", "%5", "%6", "%7")
TANDEM_WGMMA_PAIRS(8, "16", TANDEM_NAMES8, TANDEM_ACC8(d, 0), "%8", "%9", "%10", "%11")
TANDEM_WGMMA_PAIRS(12, "24", TANDEM_NAMES12, TANDEM_ACC12(d, 0), "%12", "%13", "%14", "%15")
TANDEM_WGMMA_PAIRS(24, "48", TANDEM_NAMES24, TANDEM_ACC24(d, 0), "%24", "%25", "%26", "%27")

// The same of E4M3, 64 x 32 by 32 x (2 * registers); a as a matrix or in registers.
#define TANDEM_WGMMA_CODES(count, n, names, outputs, at0, at1, at2)                          \
  __device__ inline void wgmma_codes(float(&d)[count], uint64_t a, uint64_t b, int add) {    \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " at2                                     \
                 ", 0;\n"                                                                    \
                 "wgmma.mma_async.sync.aligned.m64n" n "k32.f32.e4m3.e4m3 {" names "}, " at0 \
                 ", " at1 ", p, 1, 1;\n}"                                                    \
                 : outputs                                                                   \
                 : "l"(a), "l"(b), "r"(add)                                                  \
                 : "memory");                                                                \
  }
TANDEM_WGMMA_CODES(8, "16", TANDEM_NAMES8, TANDEM_ACC8(d, 0), "%8", "%9", "%10")
TANDEM_WGMMA_CODES(16, "32", TANDEM_NAMES16, TANDEM_ACC16(d, 0), "%16", "%17", "%18")
TANDEM_WGMMA_CODES(24, "48", TANDEM_NAMES24, TANDEM_ACC24(d, 0), "%24", "%25", "%26")
TANDEM_WGMMA_CODES(48, "96", TANDEM_NAMES48, TANDEM_ACC48(d, 0), "%48", "%49", "%50")
template <int kRegisters>
__device__ inline void wgmma_codes(float (&d)[kRegisters], const uint4& a, uint64_t b, int add) {
  wgmma_e4m3(d, a, b, add);
}

#undef TANDEM_WGMMA_CODES
#undef TANDEM_WGMMA_PAIRS
#endif

// Two values as sums of two E4M3 each: high + low / 16. Of eight bits of mantissa nothing is lost
// from 2^-6 to 448, below that 2^-14 at most; larger ones saturate.
struct TwoCodes {
  uint32_t high;  // of the first value in bits 0 .. 7, of the second in bits 8 .. 15
  uint32_t low;
};
inline constexpr float kLowCode = 1.0F / 16.0F;
__device__ inline TwoCodes two_codes(float first, float second) {
  TwoCodes codes;
  asm("{\n"
      ".reg .b16 high, low;\n"
      ".reg .b32 all, rest;\n"
      "cvt.rn.f16x2.f32 all, %3, %2;\n"
      "cvt.rn.satfinite.e4m3x2.f16x2 high, all;\n"
      "cvt.rn.f16x2.e4m3x2 rest, high;\n"
      "sub.rn.f16x2 rest, all, rest;\n"
      "mul.rn.f16x2 rest, rest, %4;\n"
      "cvt.rn.satfinite.e4m3x2.f16x2 low, rest;\n"
      "cvt.u32.u16 %0, high;\n"
      "cvt.u32.u16 %1, low;\n"
      "}"
      : "=r"(codes.high), "=r"(codes.low)
      : "f"(first), "f"(second), "r"(0x4c004c00));  // 16 in FP16, twice
  return codes;
}

// Fetches the 128 bytes around an address into L2.
__device__ inline void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

}  // namespace tandem::ops::cuda::ptx
