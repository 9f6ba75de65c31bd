// Keys and values that two thread blocks of attention (wide_attention.cu) share: each copies half
// of them to both, by the copy engine, which halves what L2 gives.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <bit>

#include "ops/cuda/device.h"
#include "ops/cuda/wide_attention_plan.cuh"

namespace tandem::ops::cuda::wide {

// A layer's keys and values as the copy engine sees them: [slots][head_dim] of pages, or widened
// ones, [rows][num_kv_heads * head_dim].
struct TensorMaps {
  CUtensorMap k, v;
};

// Columns `column` .. + 63 of rows `row` .. of a map to the same place in both thread blocks.
__device__ inline void copy_keys_to_all(uint32_t target, const CUtensorMap& map, int column,
                                        int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(target),
      "l"(reinterpret_cast<uint64_t>(&map)), "r"(column), "r"(row), "r"(barrier),
      "h"(static_cast<uint16_t>((1U << kCluster) - 1))
      : "memory");
}

// A warp copies the keys, or the values, of every step: this thread block's half of them.
template <int kDim>
__device__ void share_steps(const Job& job, const TensorMaps& maps, const Block& block, int kv_head,
                            uint32_t shared, bool values) {
  using P = Plan<kDim>;
  constexpr int kBlocks = P::kLoadColumns / 64;
  constexpr int kOwnKeys = kKeys / kCluster;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_own = ptx::cluster_rank() * kOwnKeys;
  const KvTable& places = job.attention.places;
  const bool widened = job.attention.widened.k != nullptr;
  const int together = widened ? kOwnKeys : min(places.block_size, kOwnKeys);  // keys of a copy
  const int first_column = widened ? kv_head * kDim : 0;
  const CUtensorMap& map = values ? maps.v : maps.k;
  Loads loads = loads_of<kDim>(shared, values);
  // A lane's copies.
  const int within = first_own + lane / kBlocks * together;
  const bool copies = lane / kBlocks * together < kOwnKeys;
  for (int step = block.first_step(); step <= block.last_step(); ++step) {
    // Where there is no key any page does, a valid one.
    const int key = min(step * kKeys + within, block.last_key / together * together);
    const auto row = widened ? block.widened_row + key
                             : static_cast<int>(kv_offset(places, job.attention.num_kv_heads, 1,
                                                          block.sequence, kv_head, key));
#pragma unroll
    for (int load = 0; load < P::kLoads; ++load, ++loads.index) {
      loads.wait_empty();
      if (lane == 0) ptx::barrier_arrive_expect(loads.full(), P::kLoadBytes);
      __syncwarp();
      const int column_block = lane % kBlocks;
      if (copies)
        copy_keys_to_all(loads.address() + column_block * P::kColumnBytes + within * 128, map,
                         first_column + load * P::kLoadColumns + column_block * 64, row,
                         loads.full());
    }
  }
}

// Zeros for the values of keys that nobody sees, from key `first` of the step on; they may be
// anything. A warpgroup's own load; the barrier is its own, too.
template <int kDim>
__device__ void clear_values(uint32_t values, int first, int barrier) {
  using P = Plan<kDim>;
  constexpr int kChunks = P::kLoadColumns / 8;  // of a key
  for (int i = static_cast<int>(threadIdx.x) % 128; i < (kKeys - first) * kChunks; i += 128)
    ptx::store_shared(
        values + i % kChunks / 8 * P::kColumnBytes + (first + i / kChunks) * 128 + i % 8 * 16,
        uint4{});
  ptx::fence_async_shared();
  ptx::named_barrier(barrier, 128);
}

// Rows of `columns` values, `together` of them at a time.
inline CUtensorMap tensor_map(const void* rows, int columns, int together) {
  static const auto encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    TANDEM_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                       cudaEnableDefault, &found));
    TANDEM_GPU_CHECK(found == cudaDriverEntryPointSuccess);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
  }();
  CUtensorMap map;
  // How many rows there are is known to who copies them.
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(columns), cuuint64_t{1} << 31};
  const cuuint64_t row_bytes[] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(together)};
  const cuuint32_t steps[] = {1, 1};
  TANDEM_GPU_CHECK(encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(rows), sizes,
                          row_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                          CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                          CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS);
  return map;
}

}  // namespace tandem::ops::cuda::wide
