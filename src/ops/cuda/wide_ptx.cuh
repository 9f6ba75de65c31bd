// The instructions of the prompt's kernels (PTX ISA 9.0): products of a warpgroup, copies to
// several thread blocks at once, transposition within a warp.
#pragma once

#include <cstdint>

#include "ops/cuda/card.cuh"
#include "ops/cuda/wgmma_operands.cuh"
#ifdef TANDEM_WARP_PRODUCTS
#include "ops/cuda/mma_sync.cuh"
#endif

namespace tandem::ops::cuda::ptx {

// A matrix in shared memory whose rows of 128 bytes have their 16-byte chunks exchanged: chunk c of
// row r lies at c ^ (r % 8). `group_bytes`: from one group of eight rows to the next.
// `column_bytes`: where rows are the summed dimension, from one 128-byte column block to the next.
__device__ inline uint64_t matrix_of(uint32_t address, uint32_t group_bytes,
                                     uint32_t column_bytes = 16) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return kSwizzle128 | (uint64_t{group_bytes >> 4} << 32) | (uint64_t{column_bytes >> 4} << 16) |
         ((address & 0x3ffffU) >> 4);
}

#ifndef TANDEM_WARP_PRODUCTS
// Orders this thread's register writes before products of the warpgroup that read them.
__device__ inline void warpgroup_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void warpgroup_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most `kPending` of the groups committed are under way.
template <int kPending>
__device__ inline void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
#endif
// Keeps what is computed from these registers, or into them, on its side of a fence or a wait.
template <typename T, int kCount>
__device__ inline void pin(T (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (sizeof(T) == 16)
      asm volatile(""
                   : "+r"(values[i].x), "+r"(values[i].y), "+r"(values[i].z),
                     "+r"(values[i].w)::"memory");
    else if constexpr (sizeof(T) == 4 && T(0.5F) != T(0))
      asm volatile("" : "+f"(values[i])::"memory");
    else
      asm volatile("" : "+r"(values[i])::"memory");
  }
}

#ifndef TANDEM_WARP_PRODUCTS
// d = a b, or d += a b with `add`: E4M3, 64 x 32 by 32 x (2 * registers). `a` holds 16 bytes of a
// packed weight as they are (packed_linear.h); b has one row of bytes for each column of d.
#define TANDEM_WGMMA_E4M3(count, n, a0, a1, a2, a3, at_b, at_add)                                \
  __device__ inline void wgmma_e4m3(float(&d)[count], const uint4& a, uint64_t b, int add) {     \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " at_add                                      \
                 ", 0;\n"                                                                        \
                 "wgmma.mma_async.sync.aligned.m64n" n "k32.f32.e4m3.e4m3 {" TANDEM_NAMES##count \
                 "}, {" a0 ", " a1 ", " a2 ", " a3 "}, " at_b ", p, 1, 1;\n}"                    \
                 : TANDEM_ACC##count(d, 0)                                                       \
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(add)                      \
                 : "memory");                                                                    \
  }
TANDEM_WGMMA_E4M3(4, "8", "%4", "%5", "%6", "%7", "%8", "%9")
TANDEM_WGMMA_E4M3(8, "16", "%8", "%9", "%10", "%11", "%12", "%13")
TANDEM_WGMMA_E4M3(16, "32", "%16", "%17", "%18", "%19", "%20", "%21")
TANDEM_WGMMA_E4M3(24, "48", "%24", "%25", "%26", "%27", "%28", "%29")
TANDEM_WGMMA_E4M3(32, "64", "%32", "%33", "%34", "%35", "%36", "%37")
TANDEM_WGMMA_E4M3(40, "80", "%40", "%41", "%42", "%43", "%44", "%45")
TANDEM_WGMMA_E4M3(48, "96", "%48", "%49", "%50", "%51", "%52", "%53")
TANDEM_WGMMA_E4M3(64, "128", "%64", "%65", "%66", "%67", "%68", "%69")
#undef TANDEM_WGMMA_E4M3

// d (+)= a b: BF16, 64 x 16 by 16 x (2 * registers), both with the summed dimension contiguous.
__device__ inline void wgmma_bf16(float (&d)[16], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" TANDEM_NAMES16
      "}, %16, %17, p, 1, 1, 0, 0;\n"
      "}"
      : TANDEM_ACC16(d, 0)
      : "l"(a), "l"(b), "r"(add)
      : "memory");
}
__device__ inline void wgmma_bf16(float (&d)[32], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TANDEM_NAMES32
      "}, %32, %33, p, 1, 1, 0, 0;\n"
      "}"
      : TANDEM_ACC32(d, 0)
      : "l"(a), "l"(b), "r"(add)
      : "memory");
}
// The same with `a` in registers.
__device__ inline void wgmma_bf16(float (&d)[16], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" TANDEM_NAMES16
      "}, {%16, %17, %18, %19}, %20, p, 1, 1, 0;\n"
      "}"
      : TANDEM_ACC16(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add)
      : "memory");
}
// d += a b: BF16, 64 x 16 by 16 x (2 * registers), the rows of b contiguous.
__device__ inline void wgmma_bf16_rows(float (&d)[128], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" TANDEM_NAMES128
               "}, %128, %129, 1, 1, 1, 0, 1;\n"
               : TANDEM_ACC128(d, 0)
               : "l"(a), "l"(b)
               : "memory");
}
__device__ inline void wgmma_bf16_rows(float (&d)[64], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" TANDEM_NAMES64
               "}, %64, %65, 1, 1, 1, 0, 1;\n"
               : TANDEM_ACC64(d, 0)
               : "l"(a), "l"(b)
               : "memory");
}
// d += a b: BF16, 64 x 16 in registers by 16 x (2 * registers), the rows of b contiguous.
__device__ inline void wgmma_bf16_rows(float (&d)[64], const uint32_t* a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" TANDEM_NAMES64
               "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
               : TANDEM_ACC64(d, 0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
               : "memory");
}
__device__ inline void wgmma_bf16_rows(float (&d)[32], const uint32_t* a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TANDEM_NAMES32
               "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
               : TANDEM_ACC32(d, 0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
               : "memory");
}

#endif

// Moves registers between the warpgroups of a thread block; every warp of a warpgroup calls it.
template <int kRegisters>
__device__ inline void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// bulk_copy() to the same place in every thread block of the cluster that `mask` names; each one's
// barrier counts what arrives there.
__device__ inline void bulk_copy_to_all(uint32_t target, const void* source, uint32_t bytes,
                                        uint32_t barrier, uint16_t mask) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1], %2, [%3], %4;" ::"r"(target),
      "l"(source), "r"(bytes), "r"(barrier), "h"(mask)
      : "memory");
}
// Arrives at a barrier once all asynchronous copies that this thread has started are done.
__device__ inline void copy_arrive(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
// Arrives at the same barrier of thread block `rank` of the cluster.
__device__ inline void barrier_arrive_at(uint32_t barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
      "}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
__device__ inline int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of the cluster, whole warps at a time.
__device__ inline void cluster_barrier() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}
// Orders this thread's writes to shared memory before products and bulk copies that read them.
__device__ inline void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The transpose of an 8 x 8 matrix of 16-bit values: lane 4 g + t holds columns 2t, 2t + 1 of row
// g.
__device__ inline uint32_t transpose8x8(uint32_t two) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(two));
  return result;
}
// Stores the transposes of four such matrices: lane i gives the address of column i % 8 of matrix
// i / 8, 16 bytes.
__device__ inline void store_transposed(uint32_t address, uint32_t m0, uint32_t m1, uint32_t m2,
                                        uint32_t m3) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(m0), "r"(m1), "r"(m2), "r"(m3)
      : "memory");
}
__device__ inline void store_transposed(uint32_t address, uint32_t m0, uint32_t m1) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(address),
               "r"(m0), "r"(m1)
               : "memory");
}
__device__ inline void store_shared(uint32_t address, const uint4& value) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(value.x),
               "r"(value.y), "r"(value.z), "r"(value.w)
               : "memory");
}
__device__ inline void store_shared(uint32_t address, const uint2& value) {
  asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(value.x), "r"(value.y)
               : "memory");
}
__device__ inline void store_shared(uint32_t address, uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}
// The lower half of `value`.
__device__ inline void store_shared16(uint32_t address, uint32_t value) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(static_cast<uint16_t>(value))
               : "memory");
}
// Nothing unless `condition`: not a branch.
__device__ inline void store_shared_if(bool condition, uint32_t address, const uint4& value) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.s32 p, %5, 0;\n"
      "@p st.shared.v4.u32 [%0], {%1, %2, %3, %4};\n"
      "}" ::"r"(address),
      "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "r"(static_cast<int>(condition))
      : "memory");
}
// A barrier of `count` threads of the thread block; id 1 .. 15.
__device__ inline void named_barrier(int id, int count) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory");
}
// The same without waiting for the others.
__device__ inline void named_arrive(int id, int count) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(count) : "memory");
}

}  // namespace tandem::ops::cuda::ptx
