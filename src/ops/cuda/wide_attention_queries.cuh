// The queries of a thread block of attention (wide_attention.cu): loaded once, used at every step.
#pragma once

#include "ops/cuda/wide_attention_plan.cuh"

namespace tandem::ops::cuda::wide {

// The queries of both warpgroups; zeros where there is no pair or no column.
template <int kDim>
__device__ inline void load_queries(const Job& job, const Block& block, int kv_head,
                                    uint32_t shared) {
  constexpr int kChunks = kDim / 8;
  constexpr int kCount = Plan<kDim>::kBlockPairs * kChunks / 256;  // of a thread
  const WideAttention& attention = job.attention;
  const int num_pairs = block.num_rows * job.group;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int first_pair = static_cast<int>(threadIdx.x) / kChunks;
  uint4 values[kCount];  // all on their way at once
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int pair = first_pair + i * (256 / kChunks);
    const int64_t row = block.first_row + pair / job.group;
    const int head = kv_head * job.group + pair % job.group;
    const bool exists = pair < num_pairs && chunk * 8 < attention.head_dim;
    const int64_t offset = (row * attention.num_heads + head) * attention.head_dim + chunk * 8;
    values[i] = exists ? *reinterpret_cast<const uint4*>(attention.q + offset) : uint4{};
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int pair = first_pair + i * (256 / kChunks);
    ptx::store_shared(
        shared + pair / kPairs * (kPairs * kDim * 2) + chunk_at(kPairs, pair % kPairs, chunk),
        values[i]);
  }
  ptx::fence_async_shared();
  ptx::named_barrier(1, 256);
}

// Products of 16 columns whose queries stay in registers. Where keys are shared, shared memory is
// the bound, and a product of 64 pairs by 32 keys reads twice as many queries as keys there. More
// of them gain nothing (measured).
template <Source kSource>
constexpr int kHeldProducts = kSource == Source::kShared ? 8 : 0;

// Those of a warpgroup: in shared memory, and the first columns in registers.
template <Source kSource>
struct Queries {
  static constexpr int kHeld = kHeldProducts<kSource>;
  uint32_t shared;
  uint32_t held[kHeld > 0 ? kHeld : 1][4];

  // Behind load_queries().
  __device__ void hold() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t at =
            shared + chunk_at(kPairs, row + j % 2 * 8, i * 2 + j / 2) + lane % 4 * 4;
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(held[i][j]) : "r"(at) : "memory");
      }
  }
  __device__ void pin() {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) ptx::pin(held[i]);
  }
};

}  // namespace tandem::ops::cuda::wide
