// What the kernels share that add up a row's segments (attention_combine.cu).
#pragma once

#include "ops/cuda/attention_job.cuh"
#include "ops/cuda/partials.cuh"

namespace tandem::ops::cuda::combine {

using Job = AttentionJob;

constexpr int kSlabColumns = 128;  // of a head, that a warp takes
constexpr int kChains = 8;         // segment i of a row is added to sum i % kChains

// A row's segments in the workspace, which goes round.
struct RowSegments {
  int first_slot;
  int count;
  int max_segments;
  __device__ int slot(int i) const {
    const int at = first_slot + i;
    return at >= max_segments ? at - max_segments : at;
  }
};

template <int kHeadDim>
__device__ RowSegments segments_of(const Attention& attention, int last_key) {
  constexpr int kKeys = attention_segment_keys(kHeadDim);
  const int first = first_key_of(attention.window, last_key) / kKeys;
  return {first % attention.max_segments, last_key / kKeys - first + 1, attention.max_segments};
}

// What is at `source`, or `value`; not a branch.
__device__ inline float2 load2_if(bool condition, const float2* source, float2 value) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.s32 p, %3, 0;\n"
      "@p ld.global.v2.f32 {%0, %1}, [%2];\n"
      "}"
      : "+f"(value.x), "+f"(value.y)
      : "l"(source), "r"(static_cast<int>(condition)));
  return value;
}

// The largest of a warp's values, in every lane.
__device__ inline float warp_max(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffU, value, mask));
  return value;
}

// Four neighbours of a segment's sums, as they are stored.
struct FourSums {
  uint2 bits;

  __device__ static FourSums load_if(bool condition, const uint16_t* source) {
    const float2 loaded = load2_if(condition, reinterpret_cast<const float2*>(source), {});
    return {{__float_as_uint(loaded.x), __float_as_uint(loaded.y)}};
  }
  // Columns 2j, 2j + 1, 2j + 8 and 2j + 9 of 16, of the j-th four.
  __device__ float4 values(bool is_fp8) const {
    const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&bits.x));
    const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&bits.y));
    return is_fp8 ? make_float4(low.x, low.y, high.x, high.y)
                  : make_float4(low.x, high.x, low.y, high.y);
  }
};
// The column of the first two and, 8 further, of the others, of four at `place` of a head.
__device__ inline int column_of(int place) {
  return place / 16 * 16 + place % 16 / 2;
}

// One of a row's sums in four columns, and its total.
struct Chain {
  float4 sum = {};
  float total = 0.0F;

  __device__ void add(const float4& value, float weight, float segment_total) {
    total = fmaf(segment_total, weight, total);
    sum.x = fmaf(value.x, weight, sum.x);
    sum.y = fmaf(value.y, weight, sum.y);
    sum.z = fmaf(value.z, weight, sum.z);
    sum.w = fmaf(value.w, weight, sum.w);
  }
  __device__ void join(const Chain& other) {
    sum.x += other.sum.x;
    sum.y += other.sum.y;
    sum.z += other.sum.z;
    sum.w += other.sum.w;
    total += other.total;
  }
};

// What sums are to be multiplied by, beside the total.
__device__ inline float scale_of(const Attention& attention) {
  return attention.kv.is_fp8 ? attention.kv.v_scale / kCodeSumScale : 1.0F;
}
// Two neighbouring columns of a row.
__device__ inline void store_two(const Attention& attention, int row, int column, float x0,
                                 float x1, float total, bool live = true) {
  const float scale = scale_of(attention);
  store_operand(attention.out, row, column, round_bf16(__fdiv_rn(x0 * scale, total)),
                round_bf16(__fdiv_rn(x1 * scale, total)), live);
}

// A slab's chains, of a thread block's shared memory, added up and stored, by kThreads threads.
template <int kSlab, int kThreads>
__device__ void join_chains(const Attention& attention, int row, int first_column,
                            const float4 (&sums)[kChains][kSlab / 4],
                            const float (&totals)[kChains], int thread, bool live) {
  // Pairs of neighbours, in the order in which segments have them.
  for (int c = thread * 2; c < kSlab; c += kThreads * 2) {
    float2 value = {};
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < kChains; ++i) {
      const float2 part = reinterpret_cast<const float2*>(sums[i])[c / 2];
      value.x += part.x;
      value.y += part.y;
      total += totals[i];
    }
    store_two(attention, row, first_column + column_of(c / 4 * 4) + c % 4 / 2 * 8, value.x, value.y,
              total, live);
  }
}

// The items that thread blocks draw begin from the first one again.
__device__ void reset_items(const Job& job) {
  if (job.attention.next_item != nullptr && blockIdx.x + blockIdx.y == 0 && threadIdx.x == 0)
    *job.attention.next_item = 0;
}

}  // namespace tandem::ops::cuda::combine
