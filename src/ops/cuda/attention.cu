// Attention in two kernels: one thread block, or a cluster of them, per (tile of rows, KV head,
// segment of keys) leaves the segment's maximum, total and weighted values of every row and head;
// the second kernel adds up a row's segments.
//
// The rows and query heads that share a KV head are the left side of the products, in tiles of 16,
// numbered row * group + head. Where there are fewer tiles than warps, the warps of a tile split
// the keys of the scores and then the columns of the values: each element of either product is
// still added up in the same order, so the split changes no bits. Totals are a product with ones.
//
// head_dim 512: a segment's partial values are as large as its keys when the group is large, so
// four thread blocks share a segment of 256 keys. Each scores 64 keys, passes the weights to the
// others, and adds up a quarter of the value columns over all 256 keys: nothing is loaded twice.
#include "ops/cuda/attention.h"

#include <cuda_bf16.h>

#include "ops/cuda/attention.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxTiles = 8;    // of 16 (row, head) pairs: kTileRows rows of a group of 16
constexpr int kSliceKeys = 64;  // scored by one thread block
constexpr float kLog2E = 1.4426950408889634F;

template <int kHeadDim>
struct Plan {
  static constexpr int kCluster = kHeadDim == 512 ? 4 : 1;
  static constexpr int kKeys = kCluster * kSliceKeys;   // of a segment
  static constexpr int kColumns = kHeadDim / kCluster;  // of V, per thread block
  static constexpr int kValueTiles = kColumns / 8;
  // Keys arrive in parts of this many columns; the scores begin with the first.
  static constexpr int kPartColumns = kHeadDim < 128 ? kHeadDim : 128;
  static constexpr int kParts = kHeadDim / kPartColumns;
  static constexpr int kWeightSteps = kKeys / 16;  // of the second product

  // Shared memory, in bytes from its start.
  static constexpr int kKeyAt = 0;                                     // [64][kHeadDim] BF16
  static constexpr int kValueAt = kKeyAt + kSliceKeys * kHeadDim * 2;  // [kKeys][kColumns] BF16
  static constexpr int kOffsetAt = kValueAt + kKeys * kColumns * 2;    // [kKeys] int64
  static constexpr int kWarpMaxAt = kOffsetAt + kKeys * 8;             // [kWarps][16] FP32
  static constexpr int kMaxAt = kWarpMaxAt + kWarps * 16 * 4;  // [kCluster][kMaxTiles * 16] FP32
  static constexpr int kWeightAt = kMaxAt + kCluster * kMaxTiles * 16 * 4;
  // Weights lie as the left operand's fragments: [tiles][kWeightSteps][32 lanes] of 16 bytes.
  static constexpr int bytes(int tiles) { return kWeightAt + tiles * kWeightSteps * 512; }

  static_assert(kKeys == attention_segment_keys(kHeadDim));
  static_assert(kKeys <= kThreads);
};

struct Job {
  Attention attention;
  Rows rows;
  QueryTiles tiles;
  int group;       // query heads of a KV head
  float2* totals;  // [num_rows][num_heads][max_segments]: maximum, total
};

struct Tile {
  int first_row = 0;
  int num_rows = 0;
  int sequence = -1;
  int first_key = 0;  // of any row
  int last_key = -1;
  int fresh_key = 0;  // keys from here on may be of this very pass
};

__device__ Tile load_tile(const Job& job, int index) {
  Tile tile;
  tile.first_row = job.tiles.first_rows[index];
  tile.num_rows = job.tiles.num_rows[index];
  if (tile.num_rows <= 0) return tile;
  tile.sequence = job.rows.sequences[tile.first_row];
  int last_keys[kTileRows];
#pragma unroll
  for (int r = 0; r < kTileRows; ++r)
    last_keys[r] = r < tile.num_rows ? job.rows.last_keys[tile.first_row + r] : -1;
  tile.first_key = 0x7fffffff;
  tile.fresh_key = 0x7fffffff;
#pragma unroll
  for (int r = 0; r < kTileRows; ++r) {
    if (last_keys[r] < 0) continue;
    tile.first_key = min(tile.first_key, first_key_of(job.attention.window, last_keys[r]));
    tile.last_key = max(tile.last_key, last_keys[r]);
    if (job.attention.has_fresh_keys) tile.fresh_key = min(tile.fresh_key, last_keys[r]);
  }
  return tile;
}

// A row of the products: one query row and one head.
struct Pair {
  int64_t index = -1;  // row * num_heads + head, -1: none
  int first_key = 0;
  int last_key = -1;
};

__device__ Pair load_pair(const Job& job, const Tile& tile, int kv_head, int pair_of_tile) {
  Pair pair;
  if (pair_of_tile >= tile.num_rows * job.group) return pair;
  const int row = tile.first_row + pair_of_tile / job.group;
  const int head = kv_head * job.group + pair_of_tile % job.group;
  pair.index = static_cast<int64_t>(row) * job.attention.num_heads + head;
  pair.last_key = job.rows.last_keys[row];
  pair.first_key = first_key_of(job.attention.window, pair.last_key);
  return pair;
}

// Chunks of 16 bytes are shuffled within a row, so that the lanes that load together meet different
// banks: two keys x four chunks for K, eight keys x one chunk for V.
template <int kHeadDim>
__device__ inline uint32_t key_address(uint32_t shared, int key, int chunk) {
  const int swizzle = kHeadDim >= 64 ? (key & 1) * 4 : 0;
  return shared + Plan<kHeadDim>::kKeyAt +
         static_cast<uint32_t>(key * kHeadDim * 2 + (chunk ^ swizzle) * 16);
}
template <int kHeadDim>
__device__ inline uint32_t value_address(uint32_t shared, int key, int chunk) {
  constexpr int kColumns = Plan<kHeadDim>::kColumns;
  const int swizzle = kColumns >= 64 ? key & 7 : (key >> 1) & 3;
  return shared + Plan<kHeadDim>::kValueAt +
         static_cast<uint32_t>(key * kColumns * 2 + (chunk ^ swizzle) * 16);
}

// Where keys of a tile lie, in shared memory: an element offset; kUnseen: no row sees it, it
// becomes zeros; kLater - offset: this pass writes it, so it is copied after the wait.
constexpr int64_t kUnseen = -1;
constexpr int64_t kLater = -2;

// offsets[i] of key first_key + i, i < count <= kThreads. Keys from `fresh_key` on come later.
__device__ void find_keys(const Job& job, const Tile& tile, int kv_head, int first_key, int count,
                          int fresh_key, int64_t* offsets) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < count) {
    const int key = first_key + thread;
    int64_t offset = kUnseen;
    if (key >= tile.first_key && key <= tile.last_key) {
      offset = kv_offset(job.attention.places, job.attention.num_kv_heads, job.attention.head_dim,
                         tile.sequence, kv_head, key);
      if (key >= fresh_key) offset = kLater - offset;
    }
    offsets[thread] = offset;
  }
  __syncthreads();
}

// Starts copying kChunks pieces of 16 bytes of each of kKeys keys to target(key, chunk): those that
// come later, or all the others.
template <bool kLate, int kKeys, int kChunks, typename Target>
__device__ void copy_keys(const uint16_t* source, const int64_t* offsets, const Target& target) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kChunks; i += kThreads) {
    const int key = i / kChunks;
    const int chunk = i % kChunks;
    int64_t offset = offsets[key];
    if (kLate != (offset <= kLater)) continue;
    if (kLate) offset = kLater - offset;
    ptx::copy_async(target(key, chunk), source + max(offset, int64_t{0}) + chunk * 8, offset >= 0);
  }
}

// Starts the copies of a segment: the keys of this thread block in kParts groups, then the values
// of all keys in kCluster groups.
template <int kHeadDim, bool kLate>
__device__ void start_copies(const Job& job, uint8_t* memory, int rank) {
  using P = Plan<kHeadDim>;
  const auto* const offsets = reinterpret_cast<const int64_t*>(memory + P::kOffsetAt);
  const uint32_t shared = ptx::shared_address(memory);
  constexpr int kPartChunks = P::kPartColumns / 8;
#pragma unroll
  for (int part = 0; part < P::kParts; ++part) {
    copy_keys<kLate, kSliceKeys, kPartChunks>(job.attention.kv.k + part * P::kPartColumns,
                                              offsets + rank * kSliceKeys, [&](int key, int chunk) {
                                                return key_address<kHeadDim>(
                                                    shared, key, part * kPartChunks + chunk);
                                              });
    ptx::copy_commit();
  }
#pragma unroll
  for (int slice = 0; slice < P::kCluster; ++slice) {
    copy_keys<kLate, kSliceKeys, P::kColumns / 8>(
        job.attention.kv.v + rank * P::kColumns, offsets + slice * kSliceKeys,
        [&](int key, int chunk) {
          return value_address<kHeadDim>(shared, slice * kSliceKeys + key, chunk);
        });
    ptx::copy_commit();
  }
}

// Where a warp stands among the warps of the thread block.
template <int kHeadDim, int kSlices>
struct Warp {
  using P = Plan<kHeadDim>;
  static constexpr int kKeyTiles = kSliceKeys / 8 / kSlices;
  static constexpr int kValueSlices = kSlices < P::kValueTiles ? kSlices : P::kValueTiles;
  static constexpr int kValueTiles = P::kValueTiles / kValueSlices;

  int warp = static_cast<int>(threadIdx.x) / 32;
  int lane = static_cast<int>(threadIdx.x) % 32;
  int g = lane / 4;            // row of a fragment, and row + 8
  int t = lane % 4;            // columns 2t, 2t + 1 of an accumulator
  int tile = warp / kSlices;   // of 16 pairs
  int slice = warp % kSlices;  // of the keys, then of the columns
};

// scores[i] = q K^T for the pairs g and g + 8 and the keys 2t, 2t + 1 of key tile slice * kKeyTiles
// + i. A lane's 16 bytes of Q or K, columns 8t .. 8t + 7 of 32, are two fragments: the products run
// over the columns in an order of their own, the same on both sides.
template <int kHeadDim, int kSlices>
__device__ void score(const Job& job, const Pair (&pairs)[2], uint32_t shared, bool active,
                      const Warp<kHeadDim, kSlices>& warp,
                      float (&scores)[kSliceKeys / 8 / kSlices][4]) {
  using P = Plan<kHeadDim>;
  constexpr int kPartBlocks = kHeadDim / 32 / P::kParts;
  uint4 q[2][2][kPartBlocks];  // of this part and of the next one
  const auto load_q = [&](int part) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint16_t* const source =
          job.attention.q + pairs[half].index * kHeadDim + part * P::kPartColumns + warp.t * 8;
#pragma unroll
      for (int block = 0; block < kPartBlocks; ++block)
        q[part % 2][half][block] = pairs[half].index < 0
                                       ? make_uint4(0, 0, 0, 0)
                                       : *reinterpret_cast<const uint4*>(source + block * 32);
    }
  };
  load_q(0);
#pragma unroll
  for (int part = 0; part < P::kParts; ++part) {
    if (part + 1 < P::kParts) load_q(part + 1);
    ptx::copy_wait(P::kParts - 1 - part + P::kCluster);
    __syncthreads();
    if (!active) continue;
#pragma unroll
    for (int block = 0; block < kPartBlocks; ++block) {
      const uint4& low = q[part % 2][0][block];
      const uint4& high = q[part % 2][1][block];
#pragma unroll
      for (int i = 0; i < Warp<kHeadDim, kSlices>::kKeyTiles; ++i) {
        const int key = (warp.slice * Warp<kHeadDim, kSlices>::kKeyTiles + i) * 8 + warp.g;
        const int chunk = (part * kPartBlocks + block) * 4 + warp.t;
        const uint4 k = ptx::load_shared(key_address<kHeadDim>(shared, key, chunk));
        ptx::mma_bf16(scores[i], low.x, high.x, low.y, high.y, k.x, k.y);
        ptx::mma_bf16(scores[i], low.z, high.z, low.w, high.w, k.z, k.w);
      }
    }
  }
}

// Hides the keys a pair does not see and returns the largest score left of either pair, over the
// lanes of a row. First key of the slice: `base`.
template <int kKeyTiles>
__device__ float2 mask_scores(const Pair (&pairs)[2], int base, int t,
                              float (&scores)[kKeyTiles][4]) {
  float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i)
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int key = base + i * 8 + 2 * t + c % 2;
      const Pair& pair = pairs[c / 2];
      if (key < pair.first_key || key > pair.last_key) scores[i][c] = -INFINITY;
      largest[c / 2] = fmaxf(largest[c / 2], scores[i][c]);
    }
#pragma unroll
  for (int mask = 1; mask <= 2; mask *= 2) {
    largest[0] = fmaxf(largest[0], __shfl_xor_sync(0xffffffffU, largest[0], mask));
    largest[1] = fmaxf(largest[1], __shfl_xor_sync(0xffffffffU, largest[1], mask));
  }
  return make_float2(largest[0], largest[1]);
}

// e^(score - largest); 0 for what is hidden, also where everything is.
__device__ inline float weight_of(float score, float largest) {
  return ptx::exp2_approx((score - (largest == -INFINITY ? 0.0F : largest)) * kLog2E);
}

__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Turns scores into weights relative to the largest score of this thread block's 64 keys and leaves
// both in every thread block of the cluster. An accumulator of the scores is, rounded to BF16, a
// fragment of the second product's left side: lanes store what they will load.
template <int kHeadDim, int kSlices>
__device__ void share_weights(const Warp<kHeadDim, kSlices>& warp, uint8_t* memory, int rank,
                              bool active, const float2& warp_largest,
                              const float (&scores)[kSliceKeys / 8 / kSlices][4]) {
  using P = Plan<kHeadDim>;
  constexpr int kKeyTiles = Warp<kHeadDim, kSlices>::kKeyTiles;
  auto* const warp_max = reinterpret_cast<float*>(memory + P::kWarpMaxAt);
  if (warp.t == 0) {
    warp_max[warp.warp * 16 + warp.g] = warp_largest.x;
    warp_max[warp.warp * 16 + warp.g + 8] = warp_largest.y;
  }
  __syncthreads();
  if (!active) return;
  float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int s = 0; s < kSlices; ++s) {
    largest[0] = fmaxf(largest[0], warp_max[(warp.tile * kSlices + s) * 16 + warp.g]);
    largest[1] = fmaxf(largest[1], warp_max[(warp.tile * kSlices + s) * 16 + warp.g + 8]);
  }
  const uint32_t shared = ptx::shared_address(memory);
  uint32_t peers[P::kCluster];
#pragma unroll
  for (int peer = 0; peer < P::kCluster; ++peer)
    peers[peer] = P::kCluster == 1 ? shared : ptx::peer_address(shared, peer);
#pragma unroll
  for (int i = 0; i < kKeyTiles; ++i) {
    const int key_tile = rank * (kSliceKeys / 8) + warp.slice * kKeyTiles + i;
    const int step = warp.tile * P::kWeightSteps + key_tile / 2;
    const auto at =
        static_cast<uint32_t>(P::kWeightAt + (step * 32 + warp.lane) * 16 + key_tile % 2 * 8);
    const uint2 weights = make_uint2(
        pack_bf16(weight_of(scores[i][0], largest[0]), weight_of(scores[i][1], largest[0])),
        pack_bf16(weight_of(scores[i][2], largest[1]), weight_of(scores[i][3], largest[1])));
#pragma unroll
    for (int peer = 0; peer < P::kCluster; ++peer) ptx::store_peer(peers[peer] + at, weights);
  }
  if (warp.slice == 0 && warp.t == 0) {
    const auto at =
        static_cast<uint32_t>(P::kMaxAt + ((rank * kMaxTiles + warp.tile) * 16 + warp.g) * 4);
#pragma unroll
    for (int peer = 0; peer < P::kCluster; ++peer) {
      ptx::store_peer(peers[peer] + at, largest[0]);
      ptx::store_peer(peers[peer] + at + 32, largest[1]);
    }
  }
}

// sums[i] += weights V for one slice of 64 keys, total += weights 1.
template <int kHeadDim, int kSlices, int kTiles>
__device__ void add_slice(const Warp<kHeadDim, kSlices>& warp, uint32_t shared, int slice,
                          float (&sums)[kTiles][4], float (&total)[4]) {
  using P = Plan<kHeadDim>;
  constexpr uint32_t kOnes = 0x3f803f80U;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int step = warp.tile * P::kWeightSteps + slice * 4 + half * 2;
    const auto at = static_cast<uint32_t>(P::kWeightAt + (step * 32 + warp.lane) * 16);
    const uint4 first = ptx::load_shared(shared + at);
    const uint4 second = ptx::load_shared(shared + at + 512);
    ptx::mma_bf16(total, first.x, first.y, first.z, first.w, kOnes, kOnes);
    ptx::mma_bf16(total, second.x, second.y, second.z, second.w, kOnes, kOnes);
    const int key = slice * kSliceKeys + half * 32 + warp.lane;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint4 v = ptx::load_matrices_transposed(
          value_address<kHeadDim>(shared, key, warp.slice * kTiles + i));
      ptx::mma_bf16(sums[i], first.x, first.y, first.z, first.w, v.x, v.y);
      ptx::mma_bf16(sums[i], second.x, second.y, second.z, second.w, v.z, v.w);
    }
  }
}

// What one warp leaves of a segment: sums of value columns and totals, relative to `largest`.
template <int kTiles>
struct SegmentSums {
  float sums[kTiles][4] = {};
  float total[2] = {0.0F, 0.0F};
  float largest[2] = {-INFINITY, -INFINITY};
};

// Adds up the values, slice by slice: each slice's weights are relative to a maximum of its own.
template <int kHeadDim, int kSlices>
__device__ void add_values(const Warp<kHeadDim, kSlices>& warp, const Tile& tile, uint8_t* memory,
                           int segment, bool active,
                           SegmentSums<Warp<kHeadDim, kSlices>::kValueTiles>& result) {
  using P = Plan<kHeadDim>;
  constexpr int kTiles = Warp<kHeadDim, kSlices>::kValueTiles;
  const uint32_t shared = ptx::shared_address(memory);
  const auto* const maxima =
      reinterpret_cast<const float*>(memory + P::kMaxAt) + warp.tile * 16 + warp.g;
  if (active)
#pragma unroll
    for (int slice = 0; slice < P::kCluster; ++slice) {
      result.largest[0] = fmaxf(result.largest[0], maxima[slice * kMaxTiles * 16]);
      result.largest[1] = fmaxf(result.largest[1], maxima[slice * kMaxTiles * 16 + 8]);
    }
#pragma unroll
  for (int slice = 0; slice < P::kCluster; ++slice) {
    ptx::copy_wait(P::kCluster - 1 - slice);
    __syncthreads();
    const int first_key = segment * P::kKeys + slice * kSliceKeys;
    const bool seen = first_key <= tile.last_key && first_key + kSliceKeys > tile.first_key;
    if (!active || !seen) continue;  // nothing is added where every weight is zero
    float total[4] = {};
    if constexpr (P::kCluster == 1) {
      add_slice<kHeadDim, kSlices, kTiles>(warp, shared, slice, result.sums, total);
      result.total[0] = total[0];
      result.total[1] = total[2];
    } else {
      float sums[kTiles][4] = {};
      add_slice<kHeadDim, kSlices, kTiles>(warp, shared, slice, sums, total);
      const float scale[2] = {weight_of(maxima[slice * kMaxTiles * 16], result.largest[0]),
                              weight_of(maxima[slice * kMaxTiles * 16 + 8], result.largest[1])};
#pragma unroll
      for (int i = 0; i < kTiles; ++i)
#pragma unroll
        for (int c = 0; c < 4; ++c)
          result.sums[i][c] = fmaf(sums[i][c], scale[c / 2], result.sums[i][c]);
      result.total[0] = fmaf(total[0], scale[0], result.total[0]);
      result.total[1] = fmaf(total[2], scale[1], result.total[1]);
    }
  }
}

template <int kHeadDim, int kSlices>
__device__ void store_segment(const Job& job, const Warp<kHeadDim, kSlices>& warp,
                              const Pair (&pairs)[2], int segment, int rank,
                              const SegmentSums<Warp<kHeadDim, kSlices>::kValueTiles>& result) {
  using P = Plan<kHeadDim>;
  constexpr int kTiles = Warp<kHeadDim, kSlices>::kValueTiles;
  const int first_key = segment * P::kKeys;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Pair& pair = pairs[half];
    const bool seen = first_key <= pair.last_key && first_key + P::kKeys > pair.first_key;
    if (pair.index < 0 || !seen) continue;  // the second kernel does not look at this segment
    const int64_t slot =
        pair.index * job.attention.max_segments + segment % job.attention.max_segments;
    float* const target = job.attention.workspace + slot * kHeadDim + rank * P::kColumns +
                          warp.slice * kTiles * 8 + 2 * warp.t;
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
      *reinterpret_cast<float2*>(target + i * 8) =
          make_float2(result.sums[i][half * 2], result.sums[i][half * 2 + 1]);
    if (rank == 0 && warp.slice == 0 && warp.t == 0)
      job.totals[slot] = make_float2(result.largest[half], result.total[half]);
  }
}

// One segment with kSlices warps for each tile of 16 pairs.
template <int kHeadDim, int kSlices>
__device__ void attend(const Job& job, const Tile& tile, uint8_t* memory, int segment, int rank,
                       int kv_head) {
  using P = Plan<kHeadDim>;
  using W = Warp<kHeadDim, kSlices>;
  const W warp;
  const bool active = warp.tile * 16 < tile.num_rows * job.group;
  const Pair pairs[2] = {load_pair(job, tile, kv_head, warp.tile * 16 + warp.g),
                         load_pair(job, tile, kv_head, warp.tile * 16 + warp.g + 8)};
  {
    float scores[W::kKeyTiles][4] = {};
    score<kHeadDim, kSlices>(job, pairs, ptx::shared_address(memory), active, warp, scores);
    const int base = segment * P::kKeys + rank * kSliceKeys + warp.slice * W::kKeyTiles * 8;
    const float2 largest = mask_scores<W::kKeyTiles>(pairs, base, warp.t, scores);
    if constexpr (P::kCluster > 1) ptx::cluster_wait();  // all peers run: their memory exists
    share_weights<kHeadDim, kSlices>(warp, memory, rank, active, largest, scores);
  }
  if constexpr (P::kCluster > 1) {
    ptx::cluster_arrive();
    ptx::cluster_wait();
  } else {
    __syncthreads();
  }
  const bool adds = active && warp.slice < W::kValueSlices;
  SegmentSums<W::kValueTiles> result;
  add_values<kHeadDim, kSlices>(warp, tile, memory, segment, adds, result);
  if (adds) store_segment<kHeadDim, kSlices>(job, warp, pairs, segment, rank, result);
}

// grid (segment slot x cluster, KV head, tile). kTiles: the most tiles of 16 pairs there can be, 1
// or kMaxTiles; with one, fewer registers let more thread blocks run side by side.
template <int kHeadDim, int kTiles>
__global__ void __launch_bounds__(kThreads, kTiles == 1 && kHeadDim <= 256 ? 2 : 1)
    attention_kernel(const Job job) {
  using P = Plan<kHeadDim>;
  extern __shared__ __align__(128) uint8_t memory[];
  allow_next();
  // With an early plan, old keys are on their way while the kernels before finish.
  const bool early = job.rows.early_plan;
  if (!early) wait_for_previous();
  const Tile tile = load_tile(job, static_cast<int>(blockIdx.z));
  const int slot = static_cast<int>(blockIdx.x) / P::kCluster;
  const int rank = static_cast<int>(blockIdx.x) % P::kCluster;
  const int segment = tile.first_key / P::kKeys + slot;
  if (tile.last_key < 0 || tile.sequence < 0 || segment * P::kKeys > tile.last_key) {
    if (early) wait_for_previous();
    return;
  }
  if (slot == job.attention.max_segments - 1 && (segment + 1) * P::kKeys <= tile.last_key) __trap();
  if constexpr (P::kCluster > 1) ptx::cluster_arrive();

  const int kv_head = static_cast<int>(blockIdx.y);
  find_keys(job, tile, kv_head, segment * P::kKeys, P::kKeys, early ? tile.fresh_key : 0x7fffffff,
            reinterpret_cast<int64_t*>(memory + P::kOffsetAt));
  start_copies<kHeadDim, false>(job, memory, rank);
  if (early) {
    wait_for_previous();
    if ((segment + 1) * P::kKeys > tile.fresh_key) {
      start_copies<kHeadDim, true>(job, memory, rank);
      ptx::copy_wait(0);
    }
  }
  const int num_pairs = tile.num_rows * job.group;
  if (kTiles == 1 || num_pairs <= 16)
    return attend<kHeadDim, 8>(job, tile, memory, segment, rank, kv_head);
  if constexpr (kTiles > 1) {
    if (num_pairs <= 32) return attend<kHeadDim, 4>(job, tile, memory, segment, rank, kv_head);
    if (num_pairs <= 64) return attend<kHeadDim, 2>(job, tile, memory, segment, rank, kv_head);
    attend<kHeadDim, 1>(job, tile, memory, segment, rank, kv_head);
  }
}

constexpr int kSlabColumns = 128;  // of a head, per thread block of the second kernel
constexpr int kBatch = 4;          // segments whose sums a warp fetches together

// The segments of one row that one warp adds up: warp, warp + kWarps, ... from the row's first.
struct RowSegments {
  int first_slot;
  int count;
  int max_segments;
  __device__ int slot(int i) const {
    const int at = first_slot + i;
    return at >= max_segments ? at - max_segments : at;
  }
};

// The largest maximum of all segments, in every lane.
__device__ float largest_of(const RowSegments& segments, const float2* totals, int lane) {
  float largest = -INFINITY;
  for (int i = lane; i < segments.count; i += 32)
    largest = fmaxf(largest, totals[segments.slot(i)].x);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, mask));
  return largest;
}

// The weighted sum of this warp's segments in four columns, and of their totals (w of the result's
// second half).
template <int kHeadDim>
__device__ void combine_segments(const RowSegments& segments, const float2* totals,
                                 const float* sums, int warp, int lane, bool has_columns,
                                 float4& sum, float& total) {
  float4 values[kBatch];
  float2 scales[kBatch];
  const auto fetch = [&](int begin) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = begin + b * kWarps;
      if (i >= segments.count) continue;
      const int slot = segments.slot(i);
      scales[b] = totals[slot];
      if (has_columns)
        values[b] = *reinterpret_cast<const float4*>(sums + static_cast<int64_t>(slot) * kHeadDim);
    }
  };
  fetch(warp);
  const float largest = largest_of(segments, totals, lane);
  for (int begin = warp; begin < segments.count; begin += kBatch * kWarps) {
    if (begin != warp) fetch(begin);
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (begin + b * kWarps >= segments.count) continue;
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
  if (!job.rows.early_plan) wait_for_previous();
  const Attention& attention = job.attention;
  const int thread = static_cast<int>(threadIdx.x);
  const int slab = static_cast<int>(blockIdx.x) * kSlab;
  const int head = static_cast<int>(blockIdx.y);
  const int row = static_cast<int>(blockIdx.z);
  const int column = head * kHeadDim + slab + thread * 2;
  const int last_key = job.rows.sequences[row] < 0 ? -1 : job.rows.last_keys[row];
  if (job.rows.early_plan) wait_for_previous();
  if (last_key < 0) {
    if (thread < kSlab / 2) store_operand(attention.out, row, column, 0.0F, 0.0F);
    return;
  }

  constexpr int kKeys = Plan<kHeadDim>::kKeys;
  const int first = first_key_of(attention.window, last_key) / kKeys;
  const RowSegments segments{first % attention.max_segments, last_key / kKeys - first + 1,
                             attention.max_segments};
  const int64_t base =
      (static_cast<int64_t>(row) * attention.num_heads + head) * attention.max_segments;
  const int warp = thread / 32;
  const int lane = thread % 32;
  float4 sum = {};
  float total = 0.0F;
  combine_segments<kHeadDim>(segments, job.totals + base,
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

template <int kHeadDim, int kTiles>
void launch_segments(const Stream& stream, const Job& job) {
  using P = Plan<kHeadDim>;
  auto* const kernel = attention_kernel<kHeadDim, kTiles>;
  static const bool ready = [kernel] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           P::bytes(kTiles)));
    return true;
  }();
  (void)ready;
  const int tiles = (kTileRows * job.group + 15) / 16;
  const dim3 grid(static_cast<unsigned>(P::kCluster * job.attention.max_segments),
                  static_cast<unsigned>(job.attention.num_kv_heads),
                  static_cast<unsigned>(job.tiles.num_tiles));
  launch_clusters(stream, P::kCluster, kernel, grid, dim3(kThreads),
                  static_cast<size_t>(P::bytes(tiles)), job);
}

template <int kHeadDim>
void launch_all(const Stream& stream, const Job& job) {
  if (kTileRows * job.group <= 16)
    launch_segments<kHeadDim, 1>(stream, job);
  else
    launch_segments<kHeadDim, kMaxTiles>(stream, job);
  constexpr int kSlab = kHeadDim < kSlabColumns ? kHeadDim : kSlabColumns;
  const dim3 grid(kHeadDim / kSlab, static_cast<unsigned>(job.attention.num_heads),
                  static_cast<unsigned>(job.rows.num_rows));
  launch(stream, combine_kernel<kHeadDim>, grid, dim3(kThreads), 0, job);
}

}  // namespace

void attention(const Stream& stream, const Rows& rows, const QueryTiles& tiles,
               const Attention& job) {
  TANDEM_GPU_CHECK(job.num_kv_heads > 0 && job.num_heads % job.num_kv_heads == 0);
  TANDEM_GPU_CHECK(job.num_heads / job.num_kv_heads <= kMaxTiles * 16 / kTileRows);
  TANDEM_GPU_CHECK(job.max_segments > 0 && tiles.num_tiles > 0);
  TANDEM_GPU_CHECK(rows.num_rows > 0 && rows.num_rows <= job.out.num_tiles * 8);
  auto* const totals = reinterpret_cast<float2*>(
      job.workspace + static_cast<size_t>(rows.num_rows) * static_cast<size_t>(job.num_heads) *
                          static_cast<size_t>(job.max_segments) *
                          static_cast<size_t>(job.head_dim));
  const Job all{job, rows, tiles, job.num_heads / job.num_kv_heads, totals};
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
