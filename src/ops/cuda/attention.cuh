// What the kernels around the KV cache share: where a position lies, and asynchronous copies.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx.cuh"
#include "ops/cuda/rows.h"

namespace tandem::ops::cuda {

inline constexpr float kLog2E = 1.4426950408889634F;

// The first key that a row sees whose last one is `last_key`; window 0: from the beginning.
__device__ inline int first_key_of(int window, int last_key) {
  return window == 0 ? 0 : max(0, last_key - window + 1);
}

// Keys or values that are BF16.
__device__ inline uint16_t* bf16_rows(void* rows) {
  return static_cast<uint16_t*>(rows);
}

// The element at which the values of (sequence, position, kv_head) begin in KvLayer::k and ::v.
__device__ inline int64_t kv_offset(const KvTable& places, int num_kv_heads, int head_dim,
                                    int sequence, int kv_head, int position) {
  const int place = places.ring_len > 0 ? position % places.ring_len : position;
  const int block =
      places.table[static_cast<int64_t>(sequence) * places.max_blocks + place / places.block_size];
  const int64_t slot = (static_cast<int64_t>(block) * num_kv_heads + kv_head) * places.block_size +
                       place % places.block_size;
  return slot * head_dim;
}

namespace ptx {

// Starts copying 16 bytes to shared memory; zeros, and nothing is read, unless `valid`.
__device__ inline void copy_async(uint32_t target, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(target), "l"(source),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void copy_async(uint32_t target, const void* source) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(target), "l"(source)
               : "memory");
}
// The same of what nobody reads soon again.
__device__ inline void copy_async_once(uint32_t target, const void* source, uint64_t policy) {
  asm volatile(
      "cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2;" ::"r"(target),
      "l"(source), "l"(policy)
      : "memory");
}
// Nothing at all unless `condition`: not a branch.
__device__ inline void copy_async_if(bool condition, uint32_t target, const void* source,
                                     bool valid) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.s32 p, %3, 0;\n"
      "@p cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n"
      "}" ::"r"(target),
      "l"(source), "r"(valid ? 16 : 0), "r"(static_cast<int>(condition))
      : "memory");
}
__device__ inline void copy_async_once_if(bool condition, uint32_t target, const void* source,
                                          bool valid, uint64_t policy) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.s32 p, %3, 0;\n"
      "@p cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %4;\n"
      "}" ::"r"(target),
      "l"(source), "r"(valid ? 16 : 0), "r"(static_cast<int>(condition)), "l"(policy)
      : "memory");
}
__device__ inline void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `pending` groups of this thread's copies are under way. `pending` is known
// when compiling: it comes from an unrolled loop.
__device__ __forceinline__ void copy_wait(int pending) {
  switch (pending) {
    case 0:
      asm volatile("cp.async.wait_group 0;" ::: "memory");
      return;
    case 1:
      asm volatile("cp.async.wait_group 1;" ::: "memory");
      return;
    case 2:
      asm volatile("cp.async.wait_group 2;" ::: "memory");
      return;
    case 3:
      asm volatile("cp.async.wait_group 3;" ::: "memory");
      return;
    case 4:
      asm volatile("cp.async.wait_group 4;" ::: "memory");
      return;
    case 5:
      asm volatile("cp.async.wait_group 5;" ::: "memory");
      return;
    case 6:
      asm volatile("cp.async.wait_group 6;" ::: "memory");
      return;
    default:
      asm volatile("cp.async.wait_group 7;" ::: "memory");
  }
}

}  // namespace ptx
}  // namespace tandem::ops::cuda
