// Whose logits a thread has that multiplies a set of a head: those of two tokens, and what kernels
// make of them while they are in registers.
#pragma once

#include "ops/cuda/head_keys.cuh"
#include "ops/cuda/partials.cuh"

namespace tandem::ops::cuda {

inline constexpr float kInfinity = __builtin_huge_valf();

// The first of them; the other one is 8 more.
__device__ inline int first_id_of(int set) {
  return set * kSetColumns + static_cast<int>(threadIdx.x) / 32 * 16 +
         static_cast<int>(threadIdx.x) % 32 / 4;
}
// What `values` has for the two.
__device__ inline float2 two_of(const float* values, int first_id) {
  return make_float2(ptx::load_constant(values + first_id),
                     ptx::load_constant(values + first_id + 8));
}
__device__ inline float2 two_scales(const HeadLogits& head, int first_id) {
  if (head.scales == nullptr) return make_float2(head.scale, head.scale);
  return two_of(head.scales, first_id);
}

// Which of the two are suppressed. Whole warps; `ids`: up to 64 of them in shared memory.
struct SuppressedIds {
  int mine[2];

  __device__ SuppressedIds(const HeadLogits& head, const int32_t* ids) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i)
      mine[i] = lane + 32 * i < head.num_suppressed ? ids[lane + 32 * i] : -1;
  }
  __device__ void hide(const HeadLogits& head, const int32_t* ids, int first_id,
                       bool (&hidden)[2]) const {
    const int set = first_id / kSetColumns;
    hidden[0] = hidden[1] = false;
    if (!__any_sync(kWholeWarp, mine[0] / kSetColumns == set || mine[1] / kSetColumns == set))
      return;
    for (int i = 0; i < head.num_suppressed; ++i) {
      const int offset = ids[i] - first_id;
      hidden[0] = hidden[0] || offset == 0;
      hidden[1] = hidden[1] || offset == 8;
    }
  }
};

// Which of the two are suppressed or beyond the vocabulary. Whole warps.
__device__ inline void hide_ids(const HeadLogits& head, const int32_t* ids, int first_id,
                                bool (&hidden)[2]) {
  SuppressedIds(head, ids).hide(head, ids, first_id, hidden);
  hidden[0] = hidden[0] || first_id >= head.vocab_size;
  hidden[1] = hidden[1] || first_id + 8 >= head.vocab_size;
}

// What follows is of several tiles of rows: in each a thread has two ids of rows lane % 4 * 2 and
// one more, x and z of the first row, y and w of the second.
template <int kSums>
__device__ inline float4 logits_of_tile(const float (&sums)[kSums], int tile,
                                        const float2& scales) {
  return {sums[tile * 4] * scales.x, sums[tile * 4 + 1] * scales.x, sums[tile * 4 + 2] * scales.y,
          sums[tile * 4 + 3] * scales.y};
}

// A bit for each tile with a logit that counts for any thread of the warp: reaches(tile, logits).
template <int kSums, typename Reaches>
__device__ inline uint32_t tiles_reached(const float (&sums)[kSums], const float2& scales,
                                         const Reaches& reaches) {
  uint32_t reached = 0;
#pragma unroll
  for (int tile = 0; tile < kSums / 4; ++tile)
    reached |= static_cast<uint32_t>(reaches(tile, logits_of_tile(sums, tile, scales))) << tile;
  return __reduce_or_sync(kWholeWarp, reached);
}

// The largest value of sixteen ids for row row_of_eight() of a tile. `even`, `odd`: of this
// thread's ids for its two rows.
__device__ inline int row_of_eight(int lane) {
  return lane % 4 * 2 + lane / 4 % 2;
}
__device__ inline float largest_of_ids(float even, float odd, int lane) {
  const bool is_odd = lane / 4 % 2 != 0;
  float largest = is_odd ? odd : even;
  largest = fmaxf(largest, __shfl_xor_sync(kWholeWarp, is_odd ? even : odd, 4));
  largest = fmaxf(largest, __shfl_xor_sync(kWholeWarp, largest, 8));
  return fmaxf(largest, __shfl_xor_sync(kWholeWarp, largest, 16));
}

// How long a thread block waits for others to have their first set, in ns: what they know of it
// spares everybody most of the work with later sets, and the ring fills up meanwhile.
inline constexpr unsigned kPatience = 1000;

// Tiles that a warp has set aside, so that what is done with them is not written out for each.
inline constexpr int kAsidePlaces = 2;
using Aside = float4[kAsidePlaces][32];

// Calls meet(logits, tile) for the tiles of `tiles`, a bit for each; whole warps.
template <int kSums, typename Meet>
__device__ inline void for_tiles(uint32_t tiles, const float (&sums)[kSums], const float2& scales,
                                 Aside& aside, const Meet& meet) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
  while (tiles != 0) {
    uint32_t numbers = 0;  // 8 bits for each that is set aside
    int count = 0;
#pragma unroll
    for (int tile = 0; tile < kSums / 4; ++tile) {
      if ((tiles >> tile & 1) == 0 || count == kAsidePlaces) continue;
      tiles ^= 1U << tile;
      aside[count][lane] = logits_of_tile(sums, tile, scales);
      numbers |= static_cast<uint32_t>(tile) << 8 * count++;
    }
#pragma unroll 1
    for (int place = 0; place < count; ++place)
      meet(aside[place][lane], static_cast<int>(numbers >> 8 * place & 0xff));
  }
}

}  // namespace tandem::ops::cuda
