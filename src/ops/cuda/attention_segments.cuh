// Attention of few rows: every segment of keys leaves its maximum, its total and its weighted
// values for every row and head that sees it; a second kernel (attention_combine.cu) adds up a
// row's segments.
//
// The rows and query heads that share a KV head, pairs, numbered row * group + head, are the right
// side of both products, so that a product has as many columns as there are pairs, 8 to 48:
// scores = K Q^T, 64 keys at a time, then sums = V^T weights, 64 columns of the values at a time.
// Two warpgroups split the keys of a segment, then its value columns. Totals are a product with
// ones. Which of the widths it is, how rows and value columns are split over thread blocks
// and how many segments a thread block takes changes no sum.
//
// Four warps bring what the products take, through a ring of pieces: 128 keys, 64 columns of BF16
// or 128 of E4M3, first all of a segment's K and then of its V, one segment after the other. A
// piece is [128 keys][128 bytes], chunks of 16 bytes exchanged by key, as the cache has them
// (attention_copies.cuh). E4M3 is widened on its way from there to the products
// (attention_codes.cuh).
#pragma once

#include <algorithm>

#include "ops/cuda/attention_codes.cuh"
#include "ops/cuda/attention_copies.cuh"
#include "ops/cuda/attention_ptx.cuh"
#include "ops/cuda/attention_queries.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/wide_operand.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

// Integers in the order of the floats.
__device__ inline int ordered_bits(float x) {
  const int bits = __float_as_int(x);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
__device__ inline float from_ordered(int bits) {
  return __int_as_float(bits ^ ((bits >> 31) & 0x7fffffff));
}

// The pairs of an item's rows; no thread needs those before any more.
template <typename P, int kPairs>
__device__ void set_pairs(const Job& job, const Entry& entry, int group,
                          typename P::Control& control) {
  const int pair = static_cast<int>(threadIdx.x);
  if (pair < kPairs) {
    PairInfo info{-1, 0, -1, 0};
    if (pair < entry.num_rows * job.group) {
      const auto entry_row = static_cast<int>(job.by_group.quotient(static_cast<unsigned>(pair)));
      const int row = entry.first_row + entry_row;
      const int head = group * job.group + pair - entry_row * job.group;
      info.index = row * job.attention.num_heads + head;
      info.slot = info.index * job.attention.max_segments;
      info.last_key = control.list.last_keys[row];
      info.first_key = first_key_of(job.attention.window, info.last_key);
    }
    control.pairs[pair] = info;
  }
  if (pair == kComputing - 1) {
    int from = 0;
    int to = 0x7fffffff;
    for (int r = 0; r < entry.num_rows; ++r) {
      const int last = control.list.last_keys[entry.first_row + r];
      from = max(from, first_key_of(job.attention.window, last));
      to = min(to, last);
    }
    if constexpr (P::kCopiesQueries) {  // the other place
      const uint32_t first = ptx::shared_address(&control) + P::queries_at(0, job.ring_size);
      control.queries = control.queries == first
                            ? ptx::shared_address(&control) + P::queries_at(1, job.ring_size)
                            : first;
    }
    control.all_see_from = from;
    control.all_see_to = to;
  }
  __syncwarp();
  ptx::named_barrier(1, kComputing);
}

// Their queries.
template <typename P, int kDim, int kPairs>
__device__ void load_queries(const Job& job, const typename P::Control& control, uint32_t queries) {
  const Attention& attention = job.attention;
  const int thread = P::kE4m3 ? ptx::thread_now() : static_cast<int>(threadIdx.x);
  constexpr int kChunks = kDim / 8;
  constexpr int kAll = kPairs * kChunks;
  constexpr int kCount = (kAll + kComputing - 1) / kComputing;
  constexpr int kBatch = kCount < 4 ? kCount : kCount % 4 == 0 ? 4 : 3;
  static_assert(kCount % kBatch == 0);
#pragma unroll 1
  for (int begin = 0; begin < kCount; begin += kBatch) {
    uint4 values[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = (begin + i) * kComputing + thread;
      const int column = at % kChunks * 8;
      values[i] = uint4{};
      if (at >= kAll || column >= attention.head_dim) continue;
      const PairInfo& pair = control.pairs[at / kChunks];
      if (pair.slot >= 0)
        values[i] = *reinterpret_cast<const uint4*>(
            attention.q + static_cast<int64_t>(pair.index) * attention.head_dim + column);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = (begin + i) * kComputing + thread;
      const int pair = at / kChunks;
      const int chunk = at % kChunks;
      if (at < kAll) store_query<P>(queries, kPairs, pair, chunk * 8, values[i]);
    }
  }
}

// The scores of 64 keys for each warpgroup, all columns at once, every second 16 of them added up
// by themselves: two short chains of products instead of a long one. Gives the pieces back.
template <typename P, int kPairs, bool kRolled>
__device__ void score_at_once(uint32_t all_queries, const Lane& lane, Ring& ring,
                              float (&scores)[1][kPairs / 2]) {
  float sums[2][kPairs / 2] = {};
#pragma unroll
  for (auto& sum : sums) ptx::pin(sum);
  Ring next = ring;
#pragma unroll
  for (int c = 0; c < P::kColumns; ++c, next.advance()) next.wait_full();
  ptx::fence_async_shared();
  ptx::warpgroup_fence();
  next = ring;
  const auto multiply = [&](int c) {
    const uint32_t queries = all_queries + static_cast<uint32_t>(c * kPairs * 128);
    const uint32_t keys = next.address() + static_cast<uint32_t>(lane.warpgroup * 64 * 128);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      ptx::wgmma_pairs<0>(sums[i % 2], ptx::matrix_of(keys + static_cast<uint32_t>(i * 32), 1024),
                          ptx::matrix_of(queries + static_cast<uint32_t>(i * 32), 1024), c + i / 2);
    next.advance();
  };
  if constexpr (kRolled) {
#pragma unroll 1
    for (int c = 0; c < P::kColumns; ++c) {
      ptx::warpgroup_fence();
      multiply(c);
    }
  } else {
#pragma unroll
    for (int c = 0; c < P::kColumns; ++c) multiply(c);
  }
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (auto& sum : sums) ptx::pin(sum);
#pragma unroll
  for (int c = 0; c < P::kColumns; ++c, ring.advance()) ring.give_back();
#pragma unroll
  for (int i = 0; i < kPairs / 2; ++i) scores[0][i] = sums[0][i] + sums[1][i];
}

// The scores of 128 keys for each warpgroup, 64 columns after 64.
template <typename P, int kPairs>
__device__ void score_by_columns(uint32_t all_queries, const Lane& lane, Ring& ring,
                                 float (&scores)[2][kPairs / 2]) {
#pragma unroll
  for (auto& tile : scores) ptx::pin(tile);
  Ring done = ring;
#pragma unroll 1
  for (int c = 0; c < P::kColumns; ++c) {
    const uint32_t queries = all_queries + static_cast<uint32_t>(c * kPairs * 128);
#pragma unroll
    for (int half = 0; half < 2; ++half, ring.advance()) {
      ring.wait_full();
      if (half != lane.warpgroup) {
        ring.give_back();
        continue;
      }
      ptx::fence_async_shared();
      ptx::warpgroup_fence();
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
          ptx::wgmma_pairs<0>(
              scores[tile],
              ptx::matrix_of(ring.address() + static_cast<uint32_t>(tile * 64 * 128 + i * 32),
                             1024),
              ptx::matrix_of(queries + static_cast<uint32_t>(i * 32), 1024), c + i);
      ptx::warpgroup_commit();
      if (c > 0) {
        ptx::warpgroup_wait<1>();
        done.give_back();
      }
      done = ring;
    }
  }
  ptx::warpgroup_wait<0>();
  done.give_back();
#pragma unroll
  for (auto& tile : scores) ptx::pin(tile);
}

// Hides what a pair does not see.
template <int kTiles, int kPairs>
__device__ void hide(const PairInfo* pairs, const Lane& lane, int first_key,
                     float (&scores)[kTiles][kPairs / 2]) {
#pragma unroll
  for (int i = 0; i < kPairs / 2; ++i) {
    const PairInfo& pair = pairs[i / 4 * 8 + lane.t * 2 + i % 2];
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int key = first_key + tile * 64 + lane.warp * 16 + lane.g + i / 2 % 2 * 8;
      if (key < pair.first_key || key > pair.last_key) scores[tile][i] = -INFINITY;
    }
  }
}

// The largest score of every pair in this warp, into `maxima`.
template <int kTiles, int kPairs>
__device__ void find_maxima(const Lane& lane, const float (&scores)[kTiles][kPairs / 2],
                            int* maxima) {
#pragma unroll
  for (int j = 0; j < kPairs / 8; ++j) {
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
      for (int c = 0; c < 4; ++c) largest[c % 2] = fmaxf(largest[c % 2], scores[tile][j * 4 + c]);
#pragma unroll
    for (int mask = 4; mask <= 16; mask *= 2) {
      largest[0] = fmaxf(largest[0], __shfl_xor_sync(0xffffffffU, largest[0], mask));
      largest[1] = fmaxf(largest[1], __shfl_xor_sync(0xffffffffU, largest[1], mask));
    }
    if (lane.g != j % 8) continue;
    atomicMax(&maxima[j * 8 + lane.t * 2], ordered_bits(largest[0]));
    atomicMax(&maxima[j * 8 + lane.t * 2 + 1], ordered_bits(largest[1]));
  }
}

// Two values of the right side of a product.
template <typename P>
__device__ inline uint32_t packed(float low, float high) {
  if constexpr (P::kE4m3) return ptx::f16x2(low, high);
  return bf16x2(low, high);
}

// Scores become weights, e^(score - maximum): the right side of the second product.
template <typename P, int kPairs>
__device__ void weigh(const Lane& lane, const float (&scores)[P::kHalves][kPairs / 2],
                      const int* maxima, uint32_t shared) {
  constexpr int kGroups = kPairs < 16 ? 1 : 2;  // of eight pairs, stored together
  const int thread = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int j = 0; j < kPairs / 8; j += kGroups) {
    float largest[kGroups][2];
#pragma unroll
    for (int n = 0; n < kGroups; ++n) {
      if (j + n == kPairs / 8) continue;
      const int2 bits = *reinterpret_cast<const int2*>(&maxima[(j + n) * 8 + lane.t * 2]);
      largest[n][0] = from_ordered(bits.x);
      largest[n][1] = from_ordered(bits.y);
    }
#pragma unroll
    for (int tile = 0; tile < P::kHalves; ++tile) {
      uint32_t weights[kGroups][2] = {};  // of eight pairs and eight keys
#pragma unroll
      for (int n = 0; n < kGroups; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (j + n == kPairs / 8) continue;
          const float* const own = &scores[tile][(j + n) * 4 + half * 2];
          weights[n][half] =
              packed<P>(weight_of(own[0], largest[n][0]), weight_of(own[1], largest[n][1]));
        }
      const int block = lane.warpgroup * P::kHalves + tile;  // of 64 keys
      const int pair = (j + (kGroups > 1 ? thread / 16 : 0)) * 8 + thread % 8;
      const int chunk = lane.warp * 2 + thread / 8 % 2;
      const uint32_t target =
          shared + P::kWeightAt +
          static_cast<uint32_t>((block * pairs_with_weights(kPairs) + pair) * 128 +
                                (chunk ^ pair % 8) * 16);
      if constexpr (kGroups > 1)
        ptx::store_transposed(target, weights[0][0], weights[0][1], weights[1][0], weights[1][1]);
      else
        ptx::store_transposed(target, weights[0][0], weights[0][1]);
    }
  }
  ptx::fence_async_shared();
}

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
    ptx::wgmma_ones<P::kE4m3>(sums, weights_of_step<P, kPairs>(shared, step), step);
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
  const Attention& attention = job.attention;
  if (first_column + lane.warp * 16 >= attention.head_dim) return;
  float* const target =
      attention.workspace + first_column + lane.warp * 16 + lane.g * (P::kE4m3 ? 2 : 1);
#pragma unroll
  for (int i = 0; i < kPairs / 4; ++i) {
    if (targets.slots[i] < 0) continue;
    float* const own = target + static_cast<int64_t>(targets.slots[i]) * attention.head_dim;
    const float low = sums[i / 2 * 4 + i % 2];
    const float high = sums[i / 2 * 4 + i % 2 + 2];
    if constexpr (P::kE4m3) {  // neighbours (load_columns()); of values as they are stored
      const float scale = attention.kv.v_scale;
      *reinterpret_cast<float2*>(own) = make_float2(low * scale, high * scale);
    } else {
      own[0] = low;
      own[8] = high;
    }
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
  constexpr int kOwnColumns = (P::kColumns + 1) / 2;
  float sums[kOwnColumns][2][kPairs / 2] = {};
  float totals[kPairs / 2] = {};
  ptx::pin(totals);
#pragma unroll
  for (auto& own : sums)
#pragma unroll
    for (auto& sum : own) ptx::pin(sum);
  Ring own_ring = ring;  // begins with the warpgroup's first columns
  if (P::kColumns > 1 && lane.warpgroup == 1) own_ring.advance();
#pragma unroll
  for (int c = 0; c < P::kColumns; ++c, ring.advance()) {
    ring.wait_full();
    if (P::kColumns > 1 && c % 2 != lane.warpgroup) ring.give_back();
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
    if (c >= P::kColumns) continue;
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
    ptx::pin(sums);
    ptx::warpgroup_fence();
    multiply_ones<P, kPairs>(shared, sums);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
    ptx::pin(sums);
  }
  __device__ void set(const float (&chains)[2][kPairs / 2], int first_column) {
#pragma unroll
    for (int i = 0; i < kPairs / 2; ++i) sums[i] = chains[0][i] + chains[1][i];
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
  const int value_columns = P::kColumns / control.list.column_parts;
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

// The same for E4M3: a piece has columns of both warpgroups.
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
    float sums[2][kPairs / 2] = {};
#pragma unroll
    for (auto& sum : sums) ptx::pin(sum);
#pragma unroll
    for (int half = 0; half < P::kHalves; ++half, ring.advance()) {
      ring.wait_full();
      add_piece<P, kPairs>(sums, half * 8, lane, ring, shared);
      ring.give_back();
    }
    ready.store();
    ptx::warpgroup_wait<0>();
#pragma unroll
    for (auto& sum : sums) ptx::pin(sum);
    ready.set(sums, first_column + c * P::kPieceColumns + lane.warpgroup * 64);
  }
  ready.store();
}

// The pairs are there, and their queries. kRolled: less code for the scores; where pairs may change
// on the way the compiler would have products wait for each other then.
template <typename P, int kPairs, bool kRolled>
__device__ void attend_segment(const Job& job, const Item& item, const Targets<P, kPairs>& targets,
                               int parity, uint32_t shared, typename P::Control& control,
                               const Lane& lane, Ring& ring) {
  const int thread = static_cast<int>(threadIdx.x);
  int* const maxima = control.maxima[parity];
  const uint32_t queries = P::kCopiesQueries ? control.queries : shared + P::kQueryAt;
  {
    float scores[P::kHalves][kPairs / 2] = {};
    if constexpr (P::kE4m3)
      score_codes<P, kPairs>(queries, lane, job.attention.kv.k_scale, ring, scores);
    else if constexpr (P::kHalves == 1)
      score_at_once<P, kPairs, kRolled>(queries, lane, ring, scores);
    else
      score_by_columns<P, kPairs>(queries, lane, ring, scores);
    const int first_key = item.segment * P::kKeys + lane.warpgroup * P::kHalves * 64;
    if (first_key < control.all_see_from || first_key + P::kHalves * 64 - 1 > control.all_see_to)
      hide<P::kHalves, kPairs>(control.pairs, lane, first_key, scores);
    find_maxima<P::kHalves, kPairs>(lane, scores, maxima);
    __syncwarp();
    ptx::named_barrier(1, kComputing);
    if (thread < P::kMostPairs) control.maxima[parity ^ 1][thread] = ordered_bits(-INFINITY);
    weigh<P, kPairs>(lane, scores, maxima, shared);
  }
  __syncwarp();
  ptx::named_barrier(1, kComputing);
  if constexpr (P::kE4m3)
    add_codes<P, kPairs>(job, control, targets, lane, item, maxima, shared, ring);
  else if constexpr (P::kHalves == 1)
    add_at_once<P, kPairs>(job, targets, lane, maxima, shared, ring);
  else
    add_by_columns<P, kPairs>(job, control, targets, lane, item, maxima, shared, ring);
}

// The first item may wait for the kernels before.
template <typename P, int kDim, int kPairs>
__device__ void attend(const Job& job, const Item& item, bool is_new, bool is_first, int parity,
                       uint32_t shared, typename P::Control& control, Ring& ring) {
  const Lane lane;
  if (is_new) {
    ptx::named_barrier(1, kComputing);  // nobody needs the pairs before any more
    set_pairs<P, kPairs>(job, control.list.entries[item.entry], item.group, control);
    if (is_first && begins_early<P>(job)) {
      FreshKeys<P> fresh(job, control.list, item);
      wait_for_previous();
      fresh.load(job, kv_head_of(job, item));
      load_queries<P, kDim, kPairs>(job, control, shared + P::kQueryAt);
      fresh.store(shared);
      fresh.copy_others(job, control.list, item, shared);
    } else if (is_first || !P::kCopiesQueries) {
      load_queries<P, kDim, kPairs>(job, control, shared + P::kQueryAt);
    }
    ptx::fence_async_shared();
    __syncwarp();
    ptx::named_barrier(1, kComputing);
  }
  const Targets<P, kPairs> targets(job, control, lane, item.segment);
  attend_segment<P, kPairs, false>(job, item, targets, parity, shared, control, lane, ring);
}

// The same where queries are made here, and no key is fresh.
template <typename P, int kDim>
__device__ void attend_sums(const Job& job, const Item& item, bool is_new, bool waits, int parity,
                            uint32_t shared, typename P::Control& control, Ring& ring) {
  constexpr int kPairs = P::kMostPairs;
  const Lane lane;
  if (is_new) {
    ptx::named_barrier(1, kComputing);  // nobody needs the pairs before any more, nor the queries
    clear_queries<P, kDim>(shared);
    set_pairs<P, kPairs>(job, control.list.entries[item.entry], item.group, control);
  }
  const Targets<P, kPairs> targets(job, control, lane, item.segment);
  if (is_new) {
    make_queries<P>(job, control, waits, shared);
    ptx::fence_async_shared();
    __syncwarp();
    ptx::named_barrier(1, kComputing);
  }
  attend_segment<P, kPairs, true>(job, item, targets, parity, shared, control, lane, ring);
}

template <typename P, int kDim, bool kMakesQueries>
__device__ void attend_all(const Job& job, uint32_t shared, typename P::Control& control) {
  Ring ring = ring_of<P>(job, shared);
  if (control.list.count == 0) {
    if (begins_early<P>(job)) wait_for_previous();
    return;
  }
  Item item = first_item_of<P::kKeys>(control.list);
  bool is_new = true;
  bool more = true;
#pragma unroll 1
  for (int i = 0; more; ++i) {
    const int parity = i % 2;
    const int num_pairs = control.list.entries[item.entry].num_rows * job.group;
    if constexpr (kMakesQueries)
      attend_sums<P, kDim>(job, item, is_new, i == 0 && begins_early<P>(job), parity, shared,
                           control, ring);
    else if (P::kMostPairs <= 16 || num_pairs <= 16)
      attend<P, kDim, std::min(P::kMostPairs, 16)>(job, item, is_new, i == 0, parity, shared,
                                                   control, ring);
    else
      attend<P, kDim, P::kMostPairs>(job, item, is_new, i == 0, parity, shared, control, ring);
    more = go_to<P>(job, control, i + 1, item, is_new);
  }
}

// What the warps that wait for the list prepare.
template <typename P>
__device__ void prepare(const Job& job, typename P::Control& control, uint32_t shared) {
  const int thread = static_cast<int>(threadIdx.x) - kComputing;
  if (thread < 0) return;
  if (thread < job.ring_size) {
    // Full when the copies of 128 threads are done, empty when every warp that computes says so.
    const uint32_t full = shared + static_cast<uint32_t>(thread) * 8;
    ptx::barrier_init(full, 128);
    ptx::barrier_init(full + kMaxRing * 8, 8);
    ptx::fence_barrier_init();
  }
  if (P::kLong && thread == 32) {
    control.queries = 0;
    control.drawn.init();
    ptx::fence_barrier_init();
  }
  if (thread < P::kMostPairs)
    control.maxima[0][thread] = control.maxima[1][thread] = ordered_bits(-INFINITY);
}

template <int kDim, int kMostPairs, bool kIsLong, bool kMakesQueries, bool kIsE4m3>
__global__ void __launch_bounds__(PlanRegisters<kDim, kMostPairs, kIsLong, kIsE4m3>::kMostThreads,
                                  PlanRegisters<kDim, kMostPairs, kIsLong, kIsE4m3>::kBlocks)
    attention_kernel(const Job job) {
  using P = Plan<kDim, kMostPairs, kIsLong, kIsE4m3>;
  extern __shared__ __align__(1024) uint8_t memory[];
  auto& control = *reinterpret_cast<typename P::Control*>(memory);
  allow_next();
  const uint32_t shared = ptx::shared_address(memory);
  const int thread = static_cast<int>(threadIdx.x);
  prepare<P>(job, control, shared);
  if (!begins_early<P>(job)) wait_for_previous();
  if (thread < 32) list_work<P::kKeys>(job, P::kMaxColumnParts, control.list);
  __syncthreads();
  if (thread >= kComputing) {
    if constexpr (P::Registers::kMove) ptx::lower_registers<P::Registers::kCopy>();
    return copy_all<P>(job, control, shared);
  }
  if constexpr (P::Registers::kMove) ptx::raise_registers<P::Registers::kCompute>();
  attend_all<P, kDim, kMakesQueries>(job, shared, control);
}

// Cards with less shared memory have shorter rings, and less room for a second place of queries.
template <typename P>
int longest_ring() {
  const int most = std::min(P::kRing, P::ring_in(max_shared_bytes()));
  return P::kLong ? std::min(P::kLongRing, most - (P::kCopiesQueries ? 1 : 0)) : most;
}

template <typename P, int kDim, bool kMakesQueries>
void launch_plan(const Stream& stream, const Job& job, int grid) {
  auto* const kernel = attention_kernel<kDim, P::kMostPairs, P::kLong, kMakesQueries, P::kE4m3>;
  static const bool ready = [kernel] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           P::bytes(longest_ring<P>())));
    return true;
  }();
  (void)ready;
  launch(stream, kernel, dim3(static_cast<unsigned>(grid)), dim3(P::kThreads),
         static_cast<size_t>(P::bytes(job.ring_size)), job);
}

// Parts that a tile of as many rows as most have is split into.
inline int parts_of_tile(const Job& job, int most_pairs) {
  const int rows = (job.rows.num_rows + job.tiles.num_tiles - 1) / job.tiles.num_tiles;
  const int most_rows = std::max(most_pairs / job.group, 1);
  return (std::min(rows, kTileRows) + most_rows - 1) / most_rows;
}

template <int kDim, int kMostPairs, bool kIsE4m3, bool kMakesQueries = false>
void launch_segments(const Stream& stream, Job job) {
  using P = Plan<kDim, kMostPairs, false, kIsE4m3>;
  // Where value columns are split, segments are few or fill the device.
  const int64_t segments = static_cast<int64_t>(job.attention.max_segments) * job.num_groups;
  const int64_t items = P::kMaxColumnParts > 1
                            ? segments * job.rows.num_rows * P::kMaxColumnParts
                            : segments * job.tiles.num_tiles * parts_of_tile(job, kMostPairs);
  static const int blocks = num_multiprocessors();
  const int grid = items < blocks ? static_cast<int>(items) : blocks;
  job.most_rows = kMostPairs / job.group < kTileRows ? kMostPairs / job.group : kTileRows;
  constexpr int kLeastPairs = std::min(kMostPairs, 16);
  job.least_rows = kLeastPairs / job.group < kTileRows ? kLeastPairs / job.group : kTileRows;
  if constexpr (kDim >= 256 && kMostPairs <= kMediumPairs && !kMakesQueries &&
                (kDim < 512 || kMostPairs > kFewPairs)) {
    using Long = Plan<kDim, kMostPairs, true, kIsE4m3>;
    job.ring_size = longest_ring<Long>();
    job.draws = job.attention.next_item != nullptr;
    if (items > 2 * blocks && job.ring_size >= Long::kLeastRing)
      return launch_plan<Long, kDim, false>(stream, job, grid * Long::Registers::kBlocks);
    job.draws = false;
  }
  job.ring_size =
      items <= 2 * blocks ? std::min(P::kSmallRing, longest_ring<P>()) : longest_ring<P>();
  launch_plan<P, kDim, kMakesQueries>(stream, job, grid);
}

// Whether thread blocks take at most 16 pairs: keys that several of them need are then read from L2
// more than once, but there is room for a neighbour. A tile of more rows than most have is split.
inline bool use_narrow(const Job& job) {
  if (job.rows.num_rows * job.group <= job.tiles.num_tiles * 16) return true;
  if (job.tiles.num_tiles * 2 > job.rows.num_rows) return true;
  return job.tiles.num_tiles * job.attention.num_kv_heads * job.attention.max_segments <= 16;
}

// Whether no thread block has more than kFewPairs: every row has a tile of its own. One row of a
// target is better off the other way (measured).
inline bool has_few_pairs(const Job& job) {
  return job.group <= kFewPairs && job.tiles.num_tiles >= job.rows.num_rows &&
         (job.tiles.num_tiles > 1 || !job.attention.has_fresh_keys);
}

// Whether a KV head has too many query heads for that, and there are so few rows that it can have
// twice as many thread blocks: each reads all keys of its segment then, but multiplies in less
// time.
inline bool halves_groups(const Job& job) {
  const int64_t items =
      static_cast<int64_t>(job.attention.max_segments) * job.num_groups * job.rows.num_rows;
  return job.group > kFewPairs && job.group % 2 == 0 && job.tiles.num_tiles >= job.rows.num_rows &&
         2 * items <= num_multiprocessors();
}
inline Job in_halves(Job job) {
  job.group /= 2;
  job.by_group = Divisor(job.group);
  job.num_groups *= 2;
  job.group_shift = 1;
  return job;
}

template <int kDim, bool kIsE4m3>
void launch_width(const Stream& stream, const Job& job) {
  using Wide = Plan<kDim, kWidePairs, false, kIsE4m3>;
  static const bool has_room = Wide::ring_in(max_shared_bytes()) >= Wide::kLeastRing;
  if constexpr (attention_makes_queries(kDim, 1)) {
    if (job.attention.query_sums.sums.data != nullptr)
      return launch_segments<kDim, kFewPairs, kIsE4m3, true>(stream, job);
    if (has_few_pairs(job)) return launch_segments<kDim, kFewPairs, kIsE4m3>(stream, job);
  } else if (halves_groups(job)) {
    return launch_segments<kDim, kFewPairs, kIsE4m3>(stream, in_halves(job));
  }
  if (!has_room || use_narrow(job)) return launch_segments<kDim, 16, kIsE4m3>(stream, job);
  if constexpr (kDim < 512)
    if (job.rows.num_rows * job.group <= job.tiles.num_tiles * kMediumPairs)
      return launch_segments<kDim, kMediumPairs, kIsE4m3>(stream, job);
  launch_segments<kDim, kWidePairs, kIsE4m3>(stream, job);
}

// Keys and values in one of the formats that a cache has.
template <bool kIsE4m3>
void launch_all(const Stream& stream, const Job& job) {
  switch (job.attention.head_dim) {
    case 32:
    case 64:
      launch_width<64, kIsE4m3>(stream, job);
      break;
    case 128:
      launch_width<128, kIsE4m3>(stream, job);
      break;
    case 256:
      launch_width<256, kIsE4m3>(stream, job);
      break;
    case 512:
      launch_width<512, kIsE4m3>(stream, job);
      break;
    default:
      TANDEM_GPU_CHECK(!"attention: head_dim 32, 64, 128, 256 or 512");
  }
}

}  // namespace tandem::ops::cuda::segment
