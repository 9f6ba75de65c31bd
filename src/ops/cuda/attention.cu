// Attention by clusters of eight thread blocks. A cluster takes 16 pairs (row, query head of one KV
// head) of a tile, the left side of its products, over a segment of keys or a whole window. Keys
// are cut into slices of 32 at multiples of 32; slice s belongs to the thread block s % 8, which
// goes through its slices in order, with a running maximum. In the end each thread block adds up an
// eighth of the value columns over the eight, in order. Hidden keys and slices change no bit of a
// row's sums, so these depend on the row's own keys alone. A second kernel adds up the segments of
// rows that have several.
//
// The eight warps of a thread block split a slice's scores by keys and halves of head_dim, and the
// sums of values by columns. Weights are rounded to BF16; totals are a product with ones.
#include "ops/cuda/attention.h"

#include <cuda_bf16.h>

#include <algorithm>

#include "ops/cuda/attention.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kRanks = 8;   // thread blocks of a cluster
constexpr int kPairs = 16;  // of a cluster
constexpr int kSliceKeys = 32;
constexpr int kKeyTiles = kSliceKeys / 8;
constexpr int kMaxStages = 5;  // slices in shared memory
constexpr int kMaxRows = 64;
constexpr float kLog2E = 1.4426950408889634F;

template <int kHeadDim>
struct Plan {
  static constexpr int kBlocks = kHeadDim / 32;          // of Q and K columns
  static constexpr int kHalfBlocks = (kBlocks + 1) / 2;  // the lower half's, at least the upper's
  static constexpr int kValueTiles = kHeadDim < 64 ? 1 : kHeadDim / 64;  // of 8 columns, per warp
  static constexpr int kValueWarps = kHeadDim / 8 / kValueTiles;
  static constexpr int kOwnColumns = kHeadDim / kRanks;  // added up by one thread block
  static constexpr int kPitch = kOwnColumns + 8;         // floats; spreads rows over the banks

  // Shared memory, in bytes from its start. Exchanged sums take the place of keys and values.
  static constexpr int kScoreAt = 0;                             // [2][kKeyTiles][32 lanes] float4
  static constexpr int kStatAt = 2 * kKeyTiles * 32 * 16;        // [kRanks][kPairs] float2
  static constexpr int kWorkAt = kStatAt + kRanks * kPairs * 8;  // Work
  static constexpr int kQueryAt = kWorkAt + 128;                 // [kPairs][kHeadDim] BF16
  static constexpr bool kSharedQuery = kHeadDim == 512;          // or in registers
  static constexpr int kStageAt = kQueryAt + (kSharedQuery ? kPairs * kHeadDim * 2 : 0);
  static constexpr int kValueBytes = kSliceKeys * kHeadDim * 2;
  static constexpr int kStageBytes = 2 * kValueBytes;
  static constexpr int kExchangeBytes = kRanks * kPairs * kPitch * 4;
  static constexpr int bytes(int stages) {
    return kStageAt + std::max(stages * kStageBytes, kExchangeBytes);
  }
};

struct Job {
  Attention attention;
  Rows rows;
  QueryTiles tiles;
  int group;       // query heads of a KV head
  int pair_tiles;  // of 16 pairs, of one KV head, at most
  int stages;
  float2* totals;  // [num_rows][num_heads][max_segments]: maximum, total
};

__device__ inline int first_key_of(int window, int last_key) {
  return window == 0 ? 0 : max(0, last_key - window + 1);
}

// A row of the products: one query row and one head.
struct Pair {
  int row = 0;
  int head = 0;
  int first_key = 0;
  int last_key = -1;  // -1: no such pair, or it sees no key
};

// What a cluster works on.
struct Work {
  int first_row;  // of the tile
  int num_rows;
  int sequence;
  int first_pair;  // of the tile's, for this KV head
  int first_key;   // seen by any pair, within the segment
  int last_key;    // below first_key: nothing to do
  int early_last_key;
  int segment_first_key;
};

__device__ Work load_work(const Job& job, int segment) {
  Work work = {};
  work.last_key = -1;
  const int tile = static_cast<int>(blockIdx.z);
  work.first_row = job.tiles.first_rows[tile];
  work.num_rows = job.tiles.num_rows[tile];
  work.first_pair = static_cast<int>(blockIdx.y) % job.pair_tiles * kPairs;
  const int begin = work.first_pair / job.group;
  const int end = min(work.num_rows, (work.first_pair + kPairs - 1) / job.group + 1);
  if (begin >= end) return work;
  work.sequence = job.rows.sequences[work.first_row];
  int last_keys[kTileRows];
#pragma unroll
  for (int r = 0; r < kTileRows; ++r)
    last_keys[r] = r >= begin && r < end ? job.rows.last_keys[work.first_row + r] : -1;
  int smallest = 0x7fffffff;
#pragma unroll
  for (int r = 0; r < kTileRows; ++r) {
    if (last_keys[r] < 0) continue;
    smallest = min(smallest, last_keys[r]);
    work.last_key = max(work.last_key, last_keys[r]);
  }
  if (work.last_key < 0 || work.sequence < 0) {
    work.last_key = -1;
    return work;
  }
  work.early_last_key = smallest - kEarlyDistance;
  work.first_key = first_key_of(job.attention.window, smallest);
  if (job.attention.window > 0) return work;
  work.segment_first_key = segment_begin(segment);
  const int segment_last_key = segment_begin(segment + 1) - 1;
  if (segment == job.attention.max_segments - 1 && segment_last_key < work.last_key) __trap();
  work.first_key = work.segment_first_key;
  work.last_key = min(work.last_key, segment_last_key);
  return work;
}

__device__ Pair load_pair(const Job& job, const Work& work, int kv_head, int pair_of_cluster) {
  Pair pair;
  const int index = work.first_pair + pair_of_cluster;
  if (index >= work.num_rows * job.group) return pair;
  pair.row = work.first_row + index / job.group;
  pair.head = kv_head * job.group + index % job.group;
  pair.last_key = job.rows.last_keys[pair.row];
  pair.first_key = first_key_of(job.attention.window, pair.last_key);
  return pair;
}

// Rows blockIdx.z, blockIdx.z + num_tiles, ... that no cluster writes, as bits.
__device__ uint2 load_empty_rows(const Job& job, int lane) {
  const auto is_empty = [&](int i) {
    const int row = static_cast<int>(blockIdx.z) + i * job.tiles.num_tiles;
    return row < job.rows.num_rows && (job.rows.sequences[row] < 0 || job.rows.last_keys[row] < 0);
  };
  const bool low = is_empty(lane);
  const bool high = is_empty(lane + 32);
  return make_uint2(__ballot_sync(0xffffffffU, low), __ballot_sync(0xffffffffU, high));
}

template <int kHeadDim>
__device__ void zero_rows(const Job& job, uint2 empty, int rank, int kv_head) {
  constexpr int kOwn = Plan<kHeadDim>::kOwnColumns;
  uint64_t left = static_cast<uint64_t>(empty.y) << 32 | empty.x;
  while (left != 0) {
    const int i = __ffsll(static_cast<long long>(left)) - 1;
    left &= left - 1;
    const int row = static_cast<int>(blockIdx.z) + i * job.tiles.num_tiles;
    for (int item = static_cast<int>(threadIdx.x); item < job.group * kOwn / 2; item += kThreads) {
      const int head = kv_head * job.group + item / (kOwn / 2);
      const int column = head * kHeadDim + rank * kOwn + item % (kOwn / 2) * 2;
      store_operand(job.attention.out, row, column, 0.0F, 0.0F);
    }
  }
}

// Where a thread stands.
struct Thread {
  int warp = static_cast<int>(threadIdx.x) / 32;
  int lane = static_cast<int>(threadIdx.x) % 32;
  int g = lane / 4;                 // row of a fragment, and row + 8
  int t = lane % 4;                 // columns 2t, 2t + 1 of an accumulator
  int key_tile = warp % kKeyTiles;  // of the scores
  int half = warp / kKeyTiles;
};

// The slices of one thread block: the i-th is first + kRanks * i.
struct Slices {
  int first = 0;
  int count = 0;
  __device__ Slices(const Work& work, int rank) {
    const int begin = work.first_key / kSliceKeys;
    const int end = work.last_key / kSliceKeys;
    first = begin + ((rank - begin) & (kRanks - 1));
    count = first > end ? 0 : (end - first) / kRanks + 1;
  }
  __device__ int first_key(int i) const { return (first + i * kRanks) * kSliceKeys; }
};

// Chunks of 16 bytes are shuffled within a row, so that the lanes that load together meet different
// banks: two keys x four chunks for K, eight keys x one chunk for V.
template <int kHeadDim>
__device__ inline uint32_t key_address(uint32_t stage, int key, int chunk) {
  const int swizzle = kHeadDim >= 64 ? (key & 1) * 4 : 0;
  return stage + static_cast<uint32_t>(key * kHeadDim * 2 + (chunk ^ swizzle) * 16);
}
template <int kHeadDim>
__device__ inline uint32_t value_address(uint32_t stage, int key, int chunk) {
  const int swizzle = kHeadDim >= 64 ? key & 7 : (key >> 1) & 3;
  return stage + Plan<kHeadDim>::kValueBytes +
         static_cast<uint32_t>(key * kHeadDim * 2 + (chunk ^ swizzle) * 16);
}

// A warp copies four keys of each slice. Lane 4i + k finds where key k of slice first + i lies, so
// that eight slices cost one walk through the block table; -1: no pair sees the key.
template <int kHeadDim>
__device__ int64_t load_offset(const Job& job, const Work& work, const Slices& slices, int first,
                               const Thread& thread, int kv_head) {
  const int i = first + thread.lane / 4;
  const int key = slices.first_key(i) + thread.warp * 4 + thread.lane % 4;
  if (i >= slices.count || key < work.first_key || key > work.last_key) return -1;
  return kv_offset(job.attention.places, job.attention.num_kv_heads, kHeadDim, work.sequence,
                   kv_head, key);
}

// Starts copying slice i, keys and values as a group each; zeros where nothing is seen. `offset`
// comes from load_offset() for the eight slices that i belongs to.
template <int kHeadDim>
__device__ void start_copies(const Job& job, const Thread& thread, uint32_t stage, int i,
                             int64_t offset) {
  constexpr int kChunks = kHeadDim / 8;
  const auto copy = [&](const uint16_t* source, auto address) {
#pragma unroll 2
    for (int first = 0; first < 4 * kChunks; first += 32) {
      const int item = first + thread.lane;
      const int key = item / kChunks % 4;
      const int chunk = item % kChunks;
      const int64_t at = __shfl_sync(0xffffffffU, offset, i % 8 * 4 + key);
      if (4 * kChunks >= 32 || item < 4 * kChunks)
        ptx::copy_async(address(stage, thread.warp * 4 + key, chunk),
                        source + max(at, int64_t{0}) + chunk * 8, at >= 0);
    }
    ptx::copy_commit();
  };
  copy(job.attention.kv.k, [](uint32_t s, int k, int c) { return key_address<kHeadDim>(s, k, c); });
  copy(job.attention.kv.v,
       [](uint32_t s, int k, int c) { return value_address<kHeadDim>(s, k, c); });
}

// A lane's 16 bytes of Q or K, columns 8t .. 8t + 7 of 32, are two fragments: the products run over
// the columns in an order of their own, the same on both sides.
template <int kHeadDim>
__device__ uint4 load_query_chunk(const Job& job, const Work& work, int kv_head,
                                  int pair_of_cluster, int chunk) {
  const int index = work.first_pair + pair_of_cluster;
  if (index >= work.num_rows * job.group) return make_uint4(0, 0, 0, 0);
  const int64_t row = work.first_row + index / job.group;
  const int64_t head = kv_head * job.group + index % job.group;
  return *reinterpret_cast<const uint4*>(
      job.attention.q + (row * job.attention.num_heads + head) * kHeadDim + chunk * 8);
}

template <int kHeadDim>
struct Query {
  uint4 low[Plan<kHeadDim>::kHalfBlocks];   // of pair g
  uint4 high[Plan<kHeadDim>::kHalfBlocks];  // of pair g + 8

  __device__ void load(const Job& job, const Work& work, const Thread& thread, int kv_head) {
    using P = Plan<kHeadDim>;
#pragma unroll
    for (int b = 0; b < P::kHalfBlocks; ++b) {
      const int block = thread.half * P::kHalfBlocks + b;
      low[b] = high[b] = make_uint4(0, 0, 0, 0);
      if (block >= P::kBlocks) continue;
      const int chunk = block * 4 + thread.t;
      low[b] = load_query_chunk<kHeadDim>(job, work, kv_head, thread.g, chunk);
      high[b] = load_query_chunk<kHeadDim>(job, work, kv_head, thread.g + 8, chunk);
    }
  }
  __device__ void keep(uint32_t) const {}
  __device__ uint4 low_part(uint32_t, const Thread&, int b) const { return low[b]; }
  __device__ uint4 high_part(uint32_t, const Thread&, int b) const { return high[b]; }
};

// Large ones lie in shared memory.
template <>
struct Query<512> {
  static constexpr int kChunks = 512 / 8;
  static constexpr int kMine = kPairs * kChunks / kThreads;
  uint4 chunks[kMine];

  __device__ void load(const Job& job, const Work& work, const Thread&, int kv_head) {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int item = i * kThreads + static_cast<int>(threadIdx.x);
      chunks[i] = load_query_chunk<512>(job, work, kv_head, item / kChunks, item % kChunks);
    }
  }
  __device__ void keep(uint32_t shared) const {
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      const int item = i * kThreads + static_cast<int>(threadIdx.x);
      ptx::store_shared(
          key_address<512>(shared + Plan<512>::kQueryAt, item / kChunks, item % kChunks),
          chunks[i]);
    }
  }
  __device__ uint4 low_part(uint32_t shared, const Thread& thread, int b) const {
    return part(shared, thread, thread.g, b);
  }
  __device__ uint4 high_part(uint32_t shared, const Thread& thread, int b) const {
    return part(shared, thread, thread.g + 8, b);
  }
  __device__ static uint4 part(uint32_t shared, const Thread& thread, int pair, int b) {
    const int block = thread.half * Plan<512>::kHalfBlocks + b;
    return ptx::load_shared(
        key_address<512>(shared + Plan<512>::kQueryAt, pair, block * 4 + thread.t));
  }
};

// This warp's share of q K^T of a slice: eight keys, half of the columns, in two sums.
template <int kHeadDim>
__device__ void score(const Query<kHeadDim>& query, const Thread& thread, uint32_t shared,
                      uint32_t stage) {
  using P = Plan<kHeadDim>;
  float first[4] = {};
  float second[4] = {};
#pragma unroll
  for (int b = 0; b < P::kHalfBlocks; ++b) {
    const int block = thread.half * P::kHalfBlocks + b;
    if (block >= P::kBlocks) continue;
    const uint4 low = query.low_part(shared, thread, b);
    const uint4 high = query.high_part(shared, thread, b);
    const uint4 k = ptx::load_shared(
        key_address<kHeadDim>(stage, thread.key_tile * 8 + thread.g, block * 4 + thread.t));
    ptx::mma_bf16(first, low.x, high.x, low.y, high.y, k.x, k.y);
    ptx::mma_bf16(second, low.z, high.z, low.w, high.w, k.z, k.w);
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) first[c] += second[c];
  ptx::store_shared(
      shared + static_cast<uint32_t>(P::kScoreAt + (thread.warp * 32 + thread.lane) * 16), first);
}

// e^(score - largest); 0 for what is hidden, also where everything is.
__device__ inline float weight_of(float score, float largest) {
  return ptx::exp2_approx((score - (largest == -INFINITY ? 0.0F : largest)) * kLog2E);
}

__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Sums over the slices so far, of the pairs g and g + 8, relative to `largest`.
template <int kHeadDim>
struct Sums {
  float values[Plan<kHeadDim>::kValueTiles][4] = {};
  float total[2] = {0.0F, 0.0F};
  float largest[2] = {-INFINITY, -INFINITY};
};

// From the scores of a slice that begins at `first_key` to weights, as fragments of the second
// product's left side: an accumulator rounded to BF16 is one. Every warp does all of it. Returns
// by how much earlier sums shrink.
template <int kHeadDim>
__device__ float2 weigh(const Pair (&pairs)[2], const Thread& thread, uint32_t shared,
                        int first_key, float (&largest)[2], uint32_t (&weights)[kKeyTiles][2]) {
  float scores[kKeyTiles][4];
  float slice_largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i) {
    const auto at =
        shared + static_cast<uint32_t>(Plan<kHeadDim>::kScoreAt + (i * 32 + thread.lane) * 16);
    const uint4 lower = ptx::load_shared(at);
    const uint4 upper = ptx::load_shared(at + kKeyTiles * 32 * 16);
    scores[i][0] = __uint_as_float(lower.x) + __uint_as_float(upper.x);
    scores[i][1] = __uint_as_float(lower.y) + __uint_as_float(upper.y);
    scores[i][2] = __uint_as_float(lower.z) + __uint_as_float(upper.z);
    scores[i][3] = __uint_as_float(lower.w) + __uint_as_float(upper.w);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int key = first_key + i * 8 + 2 * thread.t + c % 2;
      const Pair& pair = pairs[c / 2];
      if (key < pair.first_key || key > pair.last_key) scores[i][c] = -INFINITY;
      slice_largest[c / 2] = fmaxf(slice_largest[c / 2], scores[i][c]);
    }
  }
  float shrink[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int mask = 1; mask <= 2; mask *= 2)
      slice_largest[h] =
          fmaxf(slice_largest[h], __shfl_xor_sync(0xffffffffU, slice_largest[h], mask));
    const float before = largest[h];
    largest[h] = fmaxf(before, slice_largest[h]);
    shrink[h] = weight_of(before, largest[h]);
  }
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h)
      weights[i][h] = pack_bf16(weight_of(scores[i][2 * h], largest[h]),
                                weight_of(scores[i][2 * h + 1], largest[h]));
  return make_float2(shrink[0], shrink[1]);
}

// A slice's sum starts at zero and joins the others afterwards: one that a pair does not see
// changes none of its bits.
template <int kHeadDim>
__device__ void add_values(const uint32_t (&w)[kKeyTiles][2], float2 shrink, const Thread& thread,
                           uint32_t stage, Sums<kHeadDim>& sums) {
  using P = Plan<kHeadDim>;
  constexpr uint32_t kOnes = 0x3f803f80U;
  float total[4] = {};
  ptx::mma_bf16(total, w[0][0], w[0][1], w[1][0], w[1][1], kOnes, kOnes);
  ptx::mma_bf16(total, w[2][0], w[2][1], w[3][0], w[3][1], kOnes, kOnes);
  sums.total[0] = fmaf(sums.total[0], shrink.x, total[0]);
  sums.total[1] = fmaf(sums.total[1], shrink.y, total[2]);
  if (thread.warp >= P::kValueWarps) return;
#pragma unroll
  for (int i = 0; i < P::kValueTiles; ++i) {
    const uint4 v = ptx::load_matrices_transposed(
        value_address<kHeadDim>(stage, thread.lane, thread.warp * P::kValueTiles + i));
    float values[4] = {};
    ptx::mma_bf16(values, w[0][0], w[0][1], w[1][0], w[1][1], v.x, v.y);
    ptx::mma_bf16(values, w[2][0], w[2][1], w[3][0], w[3][1], v.z, v.w);
    sums.values[i][0] = fmaf(sums.values[i][0], shrink.x, values[0]);
    sums.values[i][1] = fmaf(sums.values[i][1], shrink.x, values[1]);
    sums.values[i][2] = fmaf(sums.values[i][2], shrink.y, values[2]);
    sums.values[i][3] = fmaf(sums.values[i][3], shrink.y, values[3]);
  }
}

// To every thread block of the cluster its columns of the sums, and all maxima and totals.
template <int kHeadDim>
__device__ void send_sums(const Sums<kHeadDim>& sums, const Thread& thread, uint32_t shared,
                          int rank, bool has_slices) {
  using P = Plan<kHeadDim>;
  if (thread.t == 0) {
    const uint32_t peer = ptx::peer_address(shared + P::kStatAt, thread.warp);
    const auto at = static_cast<uint32_t>((rank * kPairs + thread.g) * 8);
    ptx::store_peer(peer + at, sums.largest[0], sums.total[0]);
    ptx::store_peer(peer + at + 8 * 8, sums.largest[1], sums.total[1]);
  }
  if (!has_slices || thread.warp >= P::kValueWarps) return;
#pragma unroll
  for (int i = 0; i < P::kValueTiles; ++i) {
    const int column = (thread.warp * P::kValueTiles + i) * 8 + 2 * thread.t;
    const uint32_t peer = ptx::peer_address(shared + P::kStageAt, column / P::kOwnColumns);
    const auto at = static_cast<uint32_t>(
        ((rank * kPairs + thread.g) * P::kPitch + column % P::kOwnColumns) * 4);
    ptx::store_peer(peer + at, sums.values[i][0], sums.values[i][1]);
    ptx::store_peer(peer + at + 8 * P::kPitch * 4, sums.values[i][2], sums.values[i][3]);
  }
}

// Adds up this thread block's columns over the cluster: the result, or one of several segments.
template <int kHeadDim>
__device__ void add_ranks(const Job& job, const Work& work, const uint8_t* memory, int segment,
                          int rank, int kv_head) {
  using P = Plan<kHeadDim>;
  constexpr int kItems = P::kOwnColumns / 2;  // of a pair
  const auto* const stats = reinterpret_cast<const float2*>(memory + P::kStatAt);
  const auto* const sums = reinterpret_cast<const float*>(memory + P::kStageAt);
  for (int item = static_cast<int>(threadIdx.x); item < kPairs * kItems; item += kThreads) {
    const int p = item / kItems;
    const int own = item % kItems * 2;
    const Pair pair = load_pair(job, work, kv_head, p);
    if (pair.last_key < work.segment_first_key) continue;  // the segment is none of the row's
    float2 stat[kRanks];
    float largest = -INFINITY;
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      stat[r] = stats[r * kPairs + p];
      largest = fmaxf(largest, stat[r].x);
    }
    float2 value = {};
    float total = 0.0F;
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (stat[r].x == -INFINITY) continue;  // nothing was sent, or only zeros
      const float scale = weight_of(stat[r].x, largest);
      const float2 part =
          *reinterpret_cast<const float2*>(sums + (r * kPairs + p) * P::kPitch + own);
      value.x = fmaf(part.x, scale, value.x);
      value.y = fmaf(part.y, scale, value.y);
      total = fmaf(stat[r].y, scale, total);
    }
    const int column = rank * P::kOwnColumns + own;
    if (job.attention.max_segments == 1) {
      store_operand(job.attention.out, pair.row, pair.head * kHeadDim + column,
                    round_bf16(__fdiv_rn(value.x, total)), round_bf16(__fdiv_rn(value.y, total)));
      continue;
    }
    const int64_t slot = (static_cast<int64_t>(pair.row) * job.attention.num_heads + pair.head) *
                             job.attention.max_segments +
                         segment;
    *reinterpret_cast<float2*>(job.attention.workspace + slot * kHeadDim + column) = value;
    if (column == 0) job.totals[slot] = make_float2(largest, total);
  }
}

// The copies of a thread block's slices: `stages` of them are under way or in use at a time.
template <int kHeadDim>
struct Copies {
  using P = Plan<kHeadDim>;
  const Job& job;
  const Thread& thread;
  const Slices& slices;
  int kv_head;
  uint32_t shared;
  int64_t offset = 0;  // see load_offset()
  int started = 0;

  __device__ uint32_t stage(int i) const {
    return shared + static_cast<uint32_t>(P::kStageAt + i % job.stages * P::kStageBytes);
  }
  __device__ void find(const Work& work) {
    offset = load_offset<kHeadDim>(job, work, slices, started, thread, kv_head);
  }
  // Two groups, empty after the last slice: waiting counts groups.
  __device__ void start_next() {
    if (started < slices.count) {
      start_copies<kHeadDim>(job, thread, stage(started), started, offset);
    } else {
      ptx::copy_commit();
      ptx::copy_commit();
    }
    ++started;
  }
};

// All slices of a thread block, one after the other.
template <int kHeadDim>
__device__ void attend(const Pair (&pairs)[2], const Query<kHeadDim>& query, const Work& work,
                       Copies<kHeadDim>& copies, Sums<kHeadDim>& sums) {
  const int stages = copies.job.stages;
  const Thread& thread = copies.thread;
  for (int i = 0; i < copies.slices.count; ++i) {
    const uint32_t stage = copies.stage(i);
    ptx::copy_wait(2 * stages - 1);
    __syncthreads();
    score<kHeadDim>(query, thread, copies.shared, stage);
    ptx::copy_wait(2 * stages - 2);
    __syncthreads();
    uint32_t weights[kKeyTiles][2];
    const float2 shrink = weigh<kHeadDim>(pairs, thread, copies.shared, copies.slices.first_key(i),
                                          sums.largest, weights);
    add_values<kHeadDim>(weights, shrink, thread, stage, sums);
    if (copies.started < copies.slices.count) {
      __syncthreads();  // before the stage is written again
      if (copies.started % 8 == 0) copies.find(work);
    }
    copies.start_next();
  }
}

// grid (segment x kRanks, KV head x pair tile, tile)
template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 2) attention_kernel(const Job job) {
  extern __shared__ __align__(128) uint8_t memory[];
  allow_next();
  const bool early_plan = job.rows.early_plan;
  if (!early_plan) wait_for_previous();
  const Thread thread;
  const int segment = static_cast<int>(blockIdx.x) / kRanks;
  const int rank = static_cast<int>(blockIdx.x) % kRanks;
  const int kv_head = static_cast<int>(blockIdx.y) / job.pair_tiles;
  const bool zeroes =
      job.attention.max_segments == 1 && static_cast<int>(blockIdx.y) % job.pair_tiles == 0;
  uint2 empty = {0, 0};
  if (zeroes) empty = load_empty_rows(job, thread.lane);
  // For later: registers are few.
  auto& kept = *reinterpret_cast<Work*>(memory + Plan<kHeadDim>::kWorkAt);
  const Work work = load_work(job, segment);
  if (threadIdx.x == 0) kept = work;
  if (work.last_key < work.first_key) {
    if (early_plan) wait_for_previous();
    zero_rows<kHeadDim>(job, empty, rank, kv_head);
    return;
  }
  const Pair pairs[2] = {load_pair(job, work, kv_head, thread.g),
                         load_pair(job, work, kv_head, thread.g + 8)};
  const Slices slices(work, rank);
  const uint32_t shared = ptx::shared_address(memory);
  Copies<kHeadDim> copies{job, thread, slices, kv_head, shared};
  copies.find(work);
  if (early_plan) {
    if (job.rows.early_keys)
      while (copies.started < job.stages &&
             slices.first_key(copies.started) + kSliceKeys - 1 <= work.early_last_key)
        copies.start_next();
    wait_for_previous();
  }
  Query<kHeadDim> query;
  query.load(job, work, thread, kv_head);
  while (copies.started < job.stages) copies.start_next();
  query.keep(shared);
  zero_rows<kHeadDim>(job, empty, rank, kv_head);

  Sums<kHeadDim> sums;
  attend<kHeadDim>(pairs, query, kept, copies, sums);
  ptx::cluster_arrive();
  ptx::cluster_wait();  // nobody reads keys and values any more
  send_sums<kHeadDim>(sums, thread, shared, rank, slices.count > 0);
  ptx::cluster_arrive();
  ptx::cluster_wait();
  add_ranks<kHeadDim>(job, kept, memory, segment, rank, kv_head);
}

constexpr int kSlabColumns = 128;  // of a head, per thread block of the second kernel
constexpr int kBatch = 4;          // segments whose sums a warp fetches together

// The weighted sum, in four columns, of the segments warp, warp + kWarps, ... of a row, and of
// their totals.
template <int kHeadDim>
__device__ void combine_segments(int count, const float2* totals, const float* sums, int warp,
                                 int lane, bool has_columns, float4& sum, float& total) {
  float4 values[kBatch];
  float2 scales[kBatch];
  const auto fetch = [&](int begin) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = begin + b * kWarps;
      if (i >= count) continue;
      scales[b] = totals[i];
      if (has_columns)
        values[b] = *reinterpret_cast<const float4*>(sums + static_cast<int64_t>(i) * kHeadDim);
    }
  };
  fetch(warp);
  float largest = -INFINITY;
  for (int i = lane; i < count; i += 32) largest = fmaxf(largest, totals[i].x);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, mask));
  for (int begin = warp; begin < count; begin += kBatch * kWarps) {
    if (begin != warp) fetch(begin);
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (begin + b * kWarps >= count) continue;
      const float scale = weight_of(scales[b].x, largest);
      total = fmaf(scales[b].y, scale, total);
      if (!has_columns) continue;
      sum.x = fmaf(values[b].x, scale, sum.x);
      sum.y = fmaf(values[b].y, scale, sum.y);
      sum.z = fmaf(values[b].z, scale, sum.z);
      sum.w = fmaf(values[b].w, scale, sum.w);
    }
  }
}

// grid (slab of columns, head, row)
template <int kHeadDim>
__global__ void __launch_bounds__(kThreads) combine_kernel(const Job job) {
  constexpr int kSlab = kHeadDim < kSlabColumns ? kHeadDim : kSlabColumns;
  __shared__ float4 warp_sums[kWarps][kSlab / 4];
  __shared__ float warp_totals[kWarps];
  allow_next();
  const Attention& attention = job.attention;
  const int thread = static_cast<int>(threadIdx.x);
  const int slab = static_cast<int>(blockIdx.x) * kSlab;
  const int head = static_cast<int>(blockIdx.y);
  const int row = static_cast<int>(blockIdx.z);
  const int column = head * kHeadDim + slab + thread * 2;
  if (!job.rows.early_plan) wait_for_previous();
  const int sequence = job.rows.sequences[row];
  const int last_key = sequence < 0 ? -1 : job.rows.last_keys[row];
  if (job.rows.early_plan) wait_for_previous();
  if (last_key < 0) {
    if (thread < kSlab / 2) store_operand(attention.out, row, column, 0.0F, 0.0F);
    return;
  }

  const int64_t base =
      (static_cast<int64_t>(row) * attention.num_heads + head) * attention.max_segments;
  const int warp = thread / 32;
  const int lane = thread % 32;
  float4 sum = {};
  float total = 0.0F;
  combine_segments<kHeadDim>(segment_of(last_key) + 1, job.totals + base,
                             attention.workspace + base * kHeadDim + slab + lane * 4, warp, lane,
                             lane < kSlab / 4, sum, total);
  if (lane < kSlab / 4) warp_sums[warp][lane] = sum;
  if (lane == 0) warp_totals[warp] = total;
  __syncthreads();
  if (thread >= kSlab / 2) return;
  float2 value = {};
  total = 0.0F;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float2 part = reinterpret_cast<const float2*>(warp_sums[w])[thread];
    value.x += part.x;
    value.y += part.y;
    total += warp_totals[w];
  }
  store_operand(attention.out, row, column, round_bf16(__fdiv_rn(value.x, total)),
                round_bf16(__fdiv_rn(value.y, total)));
}

struct DeviceLimits {
  int multiprocessors = 0;
  int block_bytes = 0;           // shared memory a thread block can have
  int multiprocessor_bytes = 0;  // and all of a multiprocessor's together
};

const DeviceLimits& device_limits() {
  static const DeviceLimits limits = [] {
    int device = 0;
    DeviceLimits found;
    TANDEM_CUDA_CHECK(cudaGetDevice(&device));
    const auto get = [device](int* value, cudaDeviceAttr attribute) {
      TANDEM_CUDA_CHECK(cudaDeviceGetAttribute(value, attribute, device));
    };
    get(&found.multiprocessors, cudaDevAttrMultiProcessorCount);
    get(&found.block_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    get(&found.multiprocessor_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
    return found;
  }();
  return limits;
}

// As many stages as a thread block has slices, if the launch leaves multiprocessors idle anyway;
// otherwise what two thread blocks on one of them can have. Changes no bits.
template <int kHeadDim>
int choose_stages(const Job& job) {
  using P = Plan<kHeadDim>;
  const DeviceLimits& limits = device_limits();
  const int last = job.attention.max_segments - 1;
  const int keys = job.attention.window > 0 ? job.attention.window + kTileRows - 1 + 2 * kSliceKeys
                                            : segment_begin(last + 1) - segment_begin(last);
  const int slices = (keys + kRanks * kSliceKeys - 1) / (kRanks * kSliceKeys);
  const int pair_tiles = (job.rows.num_rows * job.group + kPairs - 1) / kPairs;
  const int blocks = kRanks * job.attention.max_segments * job.attention.num_kv_heads * pair_tiles;
  const int room = blocks <= limits.multiprocessors
                       ? limits.block_bytes
                       : std::min(limits.block_bytes, limits.multiprocessor_bytes / 2 - 1024);
  return std::clamp((room - P::kStageAt) / P::kStageBytes, 1, std::min(slices, kMaxStages));
}

template <int kHeadDim>
void launch_all(const Stream& stream, Job job) {
  using P = Plan<kHeadDim>;
  auto* const kernel = attention_kernel<kHeadDim>;
  static const bool ready = [kernel] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           device_limits().block_bytes));
    return true;
  }();
  (void)ready;
  job.stages = choose_stages<kHeadDim>(job);
  const dim3 grid(static_cast<unsigned>(kRanks * job.attention.max_segments),
                  static_cast<unsigned>(job.attention.num_kv_heads * job.pair_tiles),
                  static_cast<unsigned>(job.tiles.num_tiles));
  launch_clusters(stream, kRanks, kernel, grid, dim3(kThreads),
                  static_cast<size_t>(P::bytes(job.stages)), job);
  if (job.attention.max_segments == 1) return;
  constexpr int kSlab = kHeadDim < kSlabColumns ? kHeadDim : kSlabColumns;
  const dim3 rows(kHeadDim / kSlab, static_cast<unsigned>(job.attention.num_heads),
                  static_cast<unsigned>(job.rows.num_rows));
  launch(stream, combine_kernel<kHeadDim>, rows, dim3(kThreads), 0, job);
}

}  // namespace

void attention(const Stream& stream, const Rows& rows, const QueryTiles& tiles,
               const Attention& job) {
  TANDEM_GPU_CHECK(job.num_kv_heads > 0 && job.num_heads % job.num_kv_heads == 0);
  TANDEM_GPU_CHECK(job.max_segments > 0 && tiles.num_tiles > 0);
  TANDEM_GPU_CHECK(job.window == 0 || job.max_segments == 1);
  TANDEM_GPU_CHECK(rows.num_rows > 0 && rows.num_rows <= job.out.num_tiles * 8);
  TANDEM_GPU_CHECK(rows.num_rows <= kMaxRows);
  auto* const totals = reinterpret_cast<float2*>(
      job.workspace + static_cast<size_t>(rows.num_rows) * static_cast<size_t>(job.num_heads) *
                          static_cast<size_t>(job.max_segments) *
                          static_cast<size_t>(job.head_dim));
  const int group = job.num_heads / job.num_kv_heads;
  const Job all{.attention = job,
                .rows = rows,
                .tiles = tiles,
                .group = group,
                .pair_tiles = (kTileRows * group + kPairs - 1) / kPairs,
                .stages = 1,
                .totals = totals};
  switch (job.head_dim) {
    case 32:
      return launch_all<32>(stream, all);
    case 64:
      return launch_all<64>(stream, all);
    case 128:
      return launch_all<128>(stream, all);
    case 256:
      return launch_all<256>(stream, all);
    case 512:
      return launch_all<512>(stream, all);
    default:
      TANDEM_GPU_CHECK(!"attention: head_dim 32, 64, 128, 256 or 512");
  }
}

}  // namespace tandem::ops::cuda
