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
// (attention_copies.cuh). E4M3 is multiplied as it is, and queries and weights are two codes each
// (attention_codes.cuh).
#pragma once

#include <algorithm>

#include "ops/cuda/attention_copies.cuh"
#include "ops/cuda/attention_queries.cuh"
#include "ops/cuda/attention_scores.cuh"
#include "ops/cuda/attention_values.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

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
      if (at < kAll) store_query<P>(job, queries, kPairs, pair, chunk * 8, values[i]);
    }
  }
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
    if constexpr (P::kHalves == 1)
      score_at_once<P, kPairs, kRolled>(job, queries, lane, ring, scores);
    else
      score_by_columns<P, kPairs>(job, queries, lane, ring, scores);
    const int first_key = item.segment * P::kKeys + lane.warpgroup * P::kHalves * 64;
    if (first_key < control.all_see_from || first_key + P::kHalves * 64 - 1 > control.all_see_to)
      hide<P::kHalves, kPairs>(control.pairs, lane, first_key, scores);
    find_maxima<P::kHalves, kPairs>(lane, scores, maxima);
    __syncwarp();
    ptx::named_barrier(1, kComputing);
    if (thread < P::kMostPairs) control.maxima[parity ^ 1][thread] = ordered_bits(-INFINITY);
    if constexpr (P::kE4m3)
      weigh_codes<P, kPairs>(lane, scores, maxima, shared);
    else
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
    clear_queries<P>(shared);
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
  if (!job.rows.early_plan) wait_for_previous();
  if (job.attention.list != nullptr)
    take_list(job, control.list);
  else if (thread < 32)
    list_work<P::kKeys>(job, P::kMaxColumnParts, static_cast<int>(gridDim.x), control.list);
  __syncthreads();
  if (job.rows.early_plan && !begins_early<P>(job)) wait_for_previous();
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
  if (job.only_lists)
    return launch(stream, list_kernel<P::kKeys>, dim3(1), dim3(32), 0, job, P::kMaxColumnParts,
                  grid);
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

// Whether no thread block takes more than kFewPairs: every row has a tile of its own, or there is
// much to do and most tiles have no more. One row of a target is better off the other way
// (measured).
inline bool has_few_pairs(const Job& job) {
  if (job.group > kFewPairs) return false;
  if (job.tiles.num_tiles >= job.rows.num_rows)
    return job.tiles.num_tiles > 1 || !job.attention.has_fresh_keys;
  return job.rows.num_rows * job.group <= job.tiles.num_tiles * kFewPairs &&
         int64_t{job.attention.max_segments} * job.num_groups * job.tiles.num_tiles >
             2 * num_multiprocessors();
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
