// The products of a warpgroup that few rows need (PTX ISA 9.0): 64 features from registers by 8
// to 192 rows from shared memory, in the layout of operand.cuh.
#pragma once

#include <cstdint>

#include "ops/cuda/wgmma_operands.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::ptx {

// Rows in core matrices of 8 rows x 16 bytes: two beside each other are 128 bytes apart, the next
// eight rows `group_bytes`.
__device__ inline uint64_t rows_of(uint32_t address, uint32_t group_bytes) {
  constexpr uint64_t kNextInputs = 128;
  return (uint64_t{group_bytes >> 4} << 32) | ((kNextInputs >> 4) << 16) |
         ((address & 0x3ffffU) >> 4);
}

// Four E4M3 values as BF16, which holds each of them, NaN too.
__device__ inline uint2 widen_e4m3(uint32_t codes) {
  uint2 wide;
  asm("{\n"
      ".reg .b16 low, high, a, b;\n"
      ".reg .b32 two;\n"
      ".reg .f32 x, y;\n"
      "mov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 two, low;\n"
      "mov.b32 {a, b}, two;\n"
      "cvt.f32.f16 x, a;\n"
      "cvt.f32.f16 y, b;\n"
      "cvt.rn.bf16x2.f32 %0, y, x;\n"
      "cvt.rn.f16x2.e4m3x2 two, high;\n"
      "mov.b32 {a, b}, two;\n"
      "cvt.f32.f16 x, a;\n"
      "cvt.f32.f16 y, b;\n"
      "cvt.rn.bf16x2.f32 %1, y, x;\n"
      "}"
      : "=r"(wide.x), "=r"(wide.y)
      : "r"(codes));
  return wide;
}

// 128 in BF16, twice, as a variable: an instruction takes one number that the compiler knows, and
// below each would become two.
[[maybe_unused]] static __constant__ uint32_t kTwo128 = 0x43004300U;

// Four integers of sign and 7 bits as BF16: +-(128 + magnitude), of which the magnitude is the
// mantissa, less +-128. Both are exact.
__device__ inline uint2 widen_integers(uint32_t codes) {
  const uint32_t exponents = kTwo128;
  const auto two = [&](uint32_t bytes) {  // each of two bytes in both halves of 16 bits
    const uint32_t raised = (bytes & 0x807f807fU) | exponents;
    const uint32_t base = (bytes & 0x80008000U) | exponents;
    uint32_t wide;
    asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(wide) : "r"(raised), "r"(base));
    return wide;
  };
  return {two(__byte_perm(codes, 0, 0x1100)), two(__byte_perm(codes, 0, 0x3322))};
}

// A counter in global memory: what was written before the addition is there for who reads it.
__device__ inline void add_release(uint32_t* counter, uint32_t value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(counter), "r"(value) : "memory");
}
__device__ inline uint32_t load_acquire(const uint32_t* counter) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}

#ifndef TANDEM_WARP_PRODUCTS
// d += a b: BF16, 64 x 16 by 16 x (2 * registers). `a` as it is packed. E4M3: wide_ptx.cuh.
#define TANDEM_WGMMA_INPUTS(count, n, a0, a1, a2, a3, at_b)                                      \
  __device__ inline void wgmma_bf16_inputs(float(&d)[count], const uint4& a, uint64_t b) {       \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" TANDEM_NAMES##count \
                 "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " at_b ", 1, 1, 1, 0;"                    \
                 : TANDEM_ACC##count(d, 0)                                                       \
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b)                                \
                 : "memory");                                                                    \
  }
TANDEM_WGMMA_INPUTS(4, "8", "%4", "%5", "%6", "%7", "%8")
TANDEM_WGMMA_INPUTS(8, "16", "%8", "%9", "%10", "%11", "%12")
TANDEM_WGMMA_INPUTS(16, "32", "%16", "%17", "%18", "%19", "%20")
TANDEM_WGMMA_INPUTS(32, "64", "%32", "%33", "%34", "%35", "%36")
TANDEM_WGMMA_INPUTS(48, "96", "%48", "%49", "%50", "%51", "%52")
TANDEM_WGMMA_INPUTS(64, "128", "%64", "%65", "%66", "%67", "%68")
TANDEM_WGMMA_INPUTS(80, "160", "%80", "%81", "%82", "%83", "%84")
TANDEM_WGMMA_INPUTS(96, "192", "%96", "%97", "%98", "%99", "%100")
#undef TANDEM_WGMMA_INPUTS
#endif

}  // namespace tandem::ops::cuda::ptx
