// The four warps of a thread block of attention (attention.cu) that copy keys and values into the
// ring.
#pragma once

#include "ops/cuda/attention_ptx.cuh"
#include "ops/cuda/attention_ring.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

// What a lane copies of a piece: chunk lane % 8 of the keys i * 4 + lane / 8 of its warp's 32.
inline constexpr int kLaneKeys = 8;

// Where this thread's key of a segment lies.
struct OwnKey {
  bool seen = false;   // by any row; others become zeros
  bool later = false;  // this pass writes it: it is copied after the wait
  int block = 0;       // of the cache
  int place = 0;       // in the block
};

__device__ inline OwnKey locate(const Job& job, const Entry& entry, int key) {
  OwnKey own;
  if (key < entry.first_key || key > entry.last_key) return own;
  const KvTable& places = job.attention.places;
  const auto size = static_cast<unsigned>(places.block_size);
  const auto position = static_cast<unsigned>(key);
  const unsigned place =
      places.ring_len > 0 ? position % static_cast<unsigned>(places.ring_len) : position;
  own.seen = true;
  own.later = key >= entry.fresh_key;
  own.block = places.table[static_cast<int64_t>(entry.sequence) * places.max_blocks + place / size];
  own.place = static_cast<int>(place % size);
  return own;
}

// Where a key begins in the cache, in chunks of 16 bytes.
__device__ inline uint32_t chunk_of_key(const Job& job, int kv_head, const OwnKey& key) {
  const Attention& attention = job.attention;
  const int64_t slot = (static_cast<int64_t>(key.block) * attention.num_kv_heads + kv_head) *
                           attention.places.block_size +
                       key.place;
  return static_cast<uint32_t>(slot * (attention.head_dim / 8));
}

// `columns`: of the cache's first key.
__device__ inline const uint16_t* chunk_at(const uint16_t* columns, uint32_t chunk) {
  return columns + static_cast<uint64_t>(chunk) * 8;
}

// The keys of a piece that a lane copies.
struct LaneKeys {
  uint32_t chunks[kLaneKeys];
  uint32_t seen = 0;  // one bit for each key
  uint32_t later = 0;

  __device__ LaneKeys(const Job& job, int kv_head, const OwnKey& key) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint32_t chunk = chunk_of_key(job, kv_head, key);
    const uint32_t all_seen = __ballot_sync(0xffffffffU, key.seen);
    const uint32_t all_later = __ballot_sync(0xffffffffU, key.later);
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i) {
      const int from = i * 4 + lane / 8;
      seen |= (all_seen >> from & 1) << i;
      later |= (all_later >> from & 1) << i;
      chunks[i] = __shfl_sync(0xffffffffU, chunk, from) + static_cast<uint32_t>(lane % 8);
    }
  }
};

// Before the wait the ring is filled with old keys, then completed with fresh ones; everything else
// follows.
enum class Phase { kOld, kFresh, kRest };

// `columns`: those of the piece, of the cache's first key.
template <Phase kPhase>
__device__ void copy_piece(const LaneKeys& keys, const uint16_t* columns, bool has_column,
                           uint32_t lane_target) {
#pragma unroll
  for (int i = 0; i < kLaneKeys; ++i) {
    const bool later = (keys.later >> i & 1) != 0;
    if (kPhase != Phase::kRest && later != (kPhase == Phase::kFresh)) continue;
    const bool valid = (keys.seen >> i & 1) != 0 && has_column;
    // Chunks of odd and even groups of four keys are exchanged differently.
    ptx::copy_async((lane_target ^ (i % 2 * 64)) + static_cast<uint32_t>(i * 4 * 128),
                    valid ? chunk_at(columns, keys.chunks[i]) : columns, valid);
  }
}

// The pieces of an item, one after the other.
template <typename P>
struct ItemPieces {
  const uint16_t* k;
  const uint16_t* v;
  int first_column;  // of the item's values
  int head_dim;
  int count;

  __device__ ItemPieces(const Job& job, const WorkList& list, const Item& item)
      : k(job.attention.kv.k), v(job.attention.kv.v), head_dim(job.attention.head_dim) {
    const int value_columns = P::kColumns / list.column_parts;
    first_column = item.column_part * value_columns * 64;
    count = (P::kColumns + value_columns) * P::kHalves;
  }
  __device__ int column(int piece) const {
    const int block = piece / P::kHalves;
    return block < P::kColumns ? block * 64 : first_column + (block - P::kColumns) * 64;
  }
  __device__ const uint16_t* columns(int piece) const {
    return (piece >= P::kColumns * P::kHalves ? v : k) + column(piece);
  }
  __device__ bool has_column(int piece) const {
    return column(piece) + static_cast<int>(threadIdx.x) % 8 * 8 < head_dim;
  }
};

// Pieces `begin` to `end` - 1 of an item into the ring.
template <typename P, Phase kPhase>
__device__ void copy_pieces(const ItemPieces<P>& pieces, const LaneKeys (&keys)[2], int begin,
                            int end, bool complete, Ring& ring) {
  const int thread = static_cast<int>(threadIdx.x - kComputing);
  const int lane_key = thread / 32 * 32 + thread % 32 / 8;
  const auto lane_at = static_cast<uint32_t>(lane_key * 128 + (thread % 8 ^ lane_key % 8) * 16);
#pragma unroll 1
  for (int p = begin; p < end; p += P::kHalves)
#pragma unroll
    for (int half = 0; half < P::kHalves; ++half) {
      if (half > 0 && p + half >= end) break;
      if (kPhase == Phase::kRest) ring.wait_empty();
      copy_piece<kPhase>(keys[half], pieces.columns(p), pieces.has_column(p),
                         ring.address() + lane_at);
      if (complete) ptx::copy_arrive(ring.full());
      ring.advance();
    }
}

// Segments of the items begin .. end - 1. With an early plan, as much of the first one as the ring
// holds is copied while the kernels before finish.
template <typename P>
__device__ void copy_all(const Job& job, const WorkList& list, int begin, int end,
                         uint32_t shared) {
  const int thread = static_cast<int>(threadIdx.x - kComputing);
  Ring ring = ring_of<P>(job, shared);
  const auto locate_all = [&](const Item& item, OwnKey(&own)[P::kHalves]) {
#pragma unroll
    for (int half = 0; half < P::kHalves; ++half)
      own[half] =
          locate(job, list.entries[item.entry], item.segment * P::kKeys + half * 128 + thread);
  };
  bool must_wait = job.rows.early_plan;
  Item item{};
  OwnKey own[P::kHalves];
  if (begin < end) {
    item = item_at<P::kKeys>(job, list, begin, 0);
    locate_all(item, own);
  }
  for (int i = begin; i < end; ++i) {
    const LaneKeys keys[2] = {{job, item.kv_head, own[0]},
                              {job, item.kv_head, own[P::kHalves - 1]}};
    const ItemPieces<P> pieces(job, list, item);
    int first = 0;
    if (must_wait) {
      const bool has_fresh = (item.segment + 1) * P::kKeys > list.entries[item.entry].fresh_key;
      first = min(job.ring_size / P::kHalves * P::kHalves, pieces.count);
      Ring ahead = ring;
      copy_pieces<P, Phase::kOld>(pieces, keys, 0, first, !has_fresh, ahead);
      // A little more, so as not to delay what comes after the wait.
      for (int p = first; p < min(first + 4, pieces.count); p += P::kHalves)
#pragma unroll
        for (int half = 0; half < P::kHalves; ++half)
          if (own[half].seen && !own[half].later)
            ptx::prefetch(chunk_at(pieces.columns(p), chunk_of_key(job, item.kv_head, own[half])));
      wait_for_previous();
      if (has_fresh)
        copy_pieces<P, Phase::kFresh>(pieces, keys, 0, first, true, ring);
      else
        ring = ahead;
      must_wait = false;
    }
    // The next item's places are on their way meanwhile.
    if (i + 1 < end) {
      item = item_at<P::kKeys>(job, list, i + 1, item.entry);
      locate_all(item, own);
    }
    copy_pieces<P, Phase::kRest>(pieces, keys, first, pieces.count, true, ring);
  }
  if (must_wait) wait_for_previous();
  ptx::copy_commit();
  ptx::copy_wait(0);  // none outlives its thread
}

}  // namespace tandem::ops::cuda::segment
