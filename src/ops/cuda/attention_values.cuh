// The second half of an item of attention (attention_segments.cuh): its values, weighted and added
// up, and where the sums go.
#pragma once

#include "ops/cuda/attention_codes.cuh"
#include "ops/cuda/attention_ptx.cuh"
#include "ops/cuda/attention_ring.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

// Whether the second kernel looks at this segment of a pair.
__device__ inline bool is_seen(const PairInfo& pair, int first_key, int end_key) {
  return pair.slot >= 0 && first_key <= pair.last_key && end_key > pair.first_key;
}

// Starts the product of a piece, 128 keys and 64 columns of the values, with the weights, in two
// chains: the even and the odd 16 keys.
template <typename P, int kPairs>
__device__ void multiply_values(uint32_t shared, const Ring& ring, int half,
                                float (&sums)[2][kPairs / 2]) {
#pragma unroll
  for (int step = 0; step < 8; ++step)
    ptx::wgmma_pairs<1>(sums[step % 2],
                        ptx::matrix_of(ring.address() + static_cast<uint32_t>(step * 2048), 1024),
                        weights_of_step<P, kPairs>(shared, half * 8 + step), half + step / 2);
}
template <typename P, int kPairs>
__device__ void multiply_ones(uint32_t shared, float (&sums)[kPairs / 2]) {
#pragma unroll
  for (int step = 0; step < P::kKeys / 16; ++step)
    ptx::wgmma_ones(sums, weights_of_step<P, kPairs>(shared, step), step);
}

// All of a warpgroup's columns, 32 keys after 32.
template <typename P, int kPairs, int kOwnColumns>
__device__ void multiply_by_keys(uint32_t shared, Ring ring,
                                 float (&sums)[kOwnColumns][2][kPairs / 2]) {
  uint32_t values[kOwnColumns];
#pragma unroll
  for (int own = 0; own < kOwnColumns; ++own, ring.advance(), ring.advance())
    values[own] = ring.address();
#pragma unroll 1
  for (int step = 0; step < 8; step += 2) {
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint64_t weights = weights_of_step<P, kPairs>(shared, step + i);
#pragma unroll
      for (int own = 0; own < kOwnColumns; ++own)
        ptx::wgmma_pairs<1>(
            sums[own][i],
            ptx::matrix_of(values[own] + static_cast<uint32_t>((step + i) * 2048), 1024), weights,
            step);
    }
  }
}

// Where a lane's pairs leave what they found in a segment; worked out while keys are on their way.
template <typename P, int kPairs>
struct Targets {
  int slots[kPairs / 4];  // -1: nowhere

  __device__ Targets(const Job& job, const typename P::Control& control, const Lane& lane,
                     int segment) {
    const auto number = static_cast<unsigned>(segment);
    const auto slot =
        static_cast<int>(number - job.by_segments.quotient(number) * job.by_segments.value);
#pragma unroll
    for (int i = 0; i < kPairs / 4; ++i) {
      const PairInfo& pair = control.pairs[i / 2 * 8 + lane.t * 2 + i % 2];
      slots[i] =
          is_seen(pair, segment * P::kKeys, (segment + 1) * P::kKeys) ? pair.slot + slot : -1;
    }
  }
};

template <typename P, int kPairs>
__device__ void store_values(const Job& job, const Targets<P, kPairs>& targets, const Lane& lane,
                             int first_column, const float (&sums)[kPairs / 2]) {
  const int head_dim = job.attention.head_dim;
  if (first_column + lane.warp * 16 >= head_dim) return;
  // A lane has columns g and g + 8, over E4M3 2g and 2g + 1 (CodeProducts).
  const int place = P::kE4m3 ? lane.g % 4 * 2 + lane.g / 4 : lane.g;
  uint16_t* const target = job.sums + first_column + lane.warp * 16 + place * 2;
#pragma unroll
  for (int i = 0; i < kPairs / 4; ++i) {
    if (targets.slots[i] < 0) continue;
    *reinterpret_cast<__half2*>(target + static_cast<int64_t>(targets.slots[i]) * head_dim) =
        __floats2half2_rn(sums[i / 2 * 4 + i % 2], sums[i / 2 * 4 + i % 2 + 2]);
  }
  __syncwarp();
}

// Maxima and totals of a segment.
template <typename P, int kPairs>
__device__ void store_totals(const Job& job, const Targets<P, kPairs>& targets, const Lane& lane,
                             const int* maxima, const float (&sums)[kPairs / 2]) {
  if (lane.warp == 0 && lane.g == 0)
#pragma unroll
    for (int i = 0; i < kPairs / 4; ++i) {
      const int index = i / 2 * 8 + lane.t * 2 + i % 2;
      if (targets.slots[i] >= 0)
        job.totals[targets.slots[i]] =
            make_float2(from_ordered(maxima[index]), sums[i / 2 * 4 + i % 2]);
    }
  __syncwarp();
}

// The values of a segment of 128 keys, all columns at once, every second 64 of them for each
// warpgroup.
template <typename P, int kPairs>
__device__ void add_at_once(const Job& job, const Targets<P, kPairs>& targets, const Lane& lane,
                            const int* maxima, uint32_t shared, Ring& ring) {
  constexpr int kOwnColumns = (P::kPieces + 1) / 2;
  float sums[kOwnColumns][2][kPairs / 2] = {};
  float totals[kPairs / 2] = {};
  ptx::pin(totals);
#pragma unroll
  for (auto& own : sums)
#pragma unroll
    for (auto& sum : own) ptx::pin(sum);
  Ring own_ring = ring;  // begins with the warpgroup's first columns
  if (P::kPieces > 1 && lane.warpgroup == 1) own_ring.advance();
#pragma unroll
  for (int c = 0; c < P::kPieces; ++c, ring.advance()) {
    ring.wait_full();
    if (P::kPieces > 1 && c % 2 != lane.warpgroup) ring.give_back();
  }
  __syncwarp();
  ptx::fence_async_shared();
  ptx::warpgroup_fence();
  // With 64 columns both warpgroups multiply them, and one uses the result.
  if constexpr (kPairs <= kFewPairs) {
    multiply_by_keys<P, kPairs>(shared, own_ring, sums);
    // Behind the loop, whose counter the compiler may put into registers that hold the ones while
    // products still read these.
    multiply_ones<P, kPairs>(shared, totals);
  } else {
    multiply_ones<P, kPairs>(shared, totals);
    Ring next = own_ring;
#pragma unroll
    for (int own = 0; own < kOwnColumns; ++own) {
      multiply_values<P, kPairs>(shared, next, 0, sums[own]);
      next.advance();
      next.advance();
    }
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
  ptx::pin(totals);
#pragma unroll
  for (auto& own : sums)
#pragma unroll
    for (auto& sum : own) ptx::pin(sum);
#pragma unroll
  for (int own = 0; own < kOwnColumns; ++own) {
    own_ring.give_back();
    own_ring.advance();
    own_ring.advance();
  }
  if (lane.warpgroup == 1) store_totals<P, kPairs>(job, targets, lane, maxima, totals);
#pragma unroll
  for (int own = 0; own < kOwnColumns; ++own) {
    const int c = own * 2 + lane.warpgroup;
    if (c >= P::kPieces) continue;
    float sum[kPairs / 2];
#pragma unroll
    for (int i = 0; i < kPairs / 2; ++i) sum[i] = sums[own][0][i] + sums[own][1][i];
    store_values<P, kPairs>(job, targets, lane, c * 64, sum);
  }
}

// Results of a warpgroup's columns, stored while the next product runs; before those the second
// warpgroup has the totals.
template <typename P, int kPairs>
struct Ready {
  const Job& job;
  const Targets<P, kPairs>& targets;
  const Lane& lane;
  const int* maxima;
  float sums[kPairs / 2] = {};
  int column = -2;  // of the values; -1: totals, -2: nothing

  __device__ void set_totals(uint32_t shared) {
    column = -1;
    float totals[product_columns(kPairs, P::kE4m3) / 2] = {};
    ptx::pin(totals);
    ptx::warpgroup_fence();
    if constexpr (P::kE4m3)
      multiply_code_ones<P, kPairs>(shared, totals);
    else
      multiply_ones<P, kPairs>(shared, totals);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
    ptx::pin(totals);
    set_joined<P>(totals, 1.0F / kWeightScale, sums);
  }
  __device__ void set(const float (&chains)[2][kPairs / 2], int first_column) {
#pragma unroll
    for (int i = 0; i < kPairs / 2; ++i) sums[i] = chains[0][i] + chains[1][i];
    column = first_column;
  }
  __device__ void set(const float (&codes)[kPairs], int first_column) {
    set_joined<P>(codes, kCodeSumScale / kWeightScale, sums);
    column = first_column;
  }
  __device__ void store() const {
    if (column == -1)
      store_totals<P, kPairs>(job, targets, lane, maxima, sums);
    else if (column >= 0)
      store_values<P, kPairs>(job, targets, lane, column, sums);
  }
};

// The same for 256 keys and an item's part of the columns, 64 after 64.
template <typename P, int kPairs>
__device__ void add_by_columns(const Job& job, const typename P::Control& control,
                               const Targets<P, kPairs>& targets, const Lane& lane,
                               const Item& item, const int* maxima, uint32_t shared, Ring& ring) {
  const int value_columns = P::kPieces / control.list.column_parts;
  const int first_column = item.column_part * value_columns * 64;
  Ready<P, kPairs> ready{job, targets, lane, maxima};
  if (lane.warpgroup == 1 && item.column_part == 0) ready.set_totals(shared);
#pragma unroll 1
  for (int c = 0; c < value_columns; ++c) {
    if (c % 2 != lane.warpgroup) {
      for (int half = 0; half < 2; ++half, ring.advance()) {
        ring.wait_full();
        ring.give_back();
      }
      continue;
    }
    float sums[2][kPairs / 2] = {};
#pragma unroll
    for (auto& sum : sums) ptx::pin(sum);
    Ring done = ring;
#pragma unroll
    for (int half = 0; half < 2; ++half, ring.advance()) {
      ring.wait_full();
      ptx::fence_async_shared();
      ptx::warpgroup_fence();
      multiply_values<P, kPairs>(shared, ring, half, sums);
    }
    ptx::warpgroup_commit();
    ready.store();
    ptx::warpgroup_wait<0>();
#pragma unroll
    for (auto& sum : sums) ptx::pin(sum);
#pragma unroll
    for (int half = 0; half < 2; ++half, done.advance()) done.give_back();
    ready.set(sums, first_column + c * 64);
  }
  ready.store();
}

// The same for E4M3 and any number of keys: a piece has columns of both warpgroups.
template <typename P, int kPairs>
__device__ void add_codes(const Job& job, const typename P::Control& control,
                          const Targets<P, kPairs>& targets, const Lane& lane, const Item& item,
                          const int* maxima, uint32_t shared, Ring& ring) {
  const int value_pieces = P::kPieces / control.list.column_parts;
  const int first_column = item.column_part * value_pieces * P::kPieceColumns;
  Ready<P, kPairs> ready{job, targets, lane, maxima};
  if (lane.warpgroup == 1 && item.column_part == 0) ready.set_totals(shared);
#pragma unroll 1
  for (int c = 0; c < value_pieces; ++c) {
    float sums[kPairs] = {};
    ptx::pin(sums);
#pragma unroll
    for (int half = 0; half < P::kHalves; ++half, ring.advance()) {
      ring.wait_full();
      add_piece<P, kPairs>(sums, half * 4, lane, ring, shared);
      ring.give_back();
    }
    ready.store();
    ptx::warpgroup_wait<0>();
    ptx::pin(sums);
    ready.set(sums, first_column + c * P::kPieceColumns + lane.warpgroup * 64);
  }
  ready.store();
}

}  // namespace tandem::ops::cuda::segment
