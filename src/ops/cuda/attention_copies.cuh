// The four warps of a thread block of attention (attention.cu) that copy keys and values into the
// ring.
#pragma once

#include "ops/cuda/attention_codes.cuh"
#include "ops/cuda/attention_ptx.cuh"
#include "ops/cuda/attention_ring.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

// What a lane copies of a piece: chunk lane % 8 of the keys i * 4 + lane / 8 of its warp's 32.
inline constexpr int kLaneKeys = 8;

// Where this thread's key of a segment lies.
struct OwnKey {
  bool seen = false;   // by any row; others become zeros
  bool later = false;  // this pass writes it: it is read after the wait
  int block = 0;       // of the cache
  int place = 0;       // in the block
};

__device__ inline OwnKey locate(const Job& job, const Entry& entry, int key) {
  OwnKey own;
  if (key < entry.first_key || key > entry.last_key) return own;
  const KvTable& places = job.attention.places;
  auto place = static_cast<unsigned>(key);
  if (places.ring_len > 0) place -= job.by_ring.quotient(place) * job.by_ring.value;
  const unsigned block = job.by_block.quotient(place);
  own.seen = true;
  own.later = key >= entry.fresh_key;
  own.block = places.table[static_cast<int64_t>(entry.sequence) * places.max_blocks + block];
  own.place = static_cast<int>(place - block * job.by_block.value);
  return own;
}

// Where a key begins in the cache, in chunks of 16 bytes.
template <typename Element>
__device__ inline uint32_t chunk_of_key(const Job& job, int kv_head, const OwnKey& key) {
  const Attention& attention = job.attention;
  const int64_t slot = (static_cast<int64_t>(key.block) * attention.num_kv_heads + kv_head) *
                           attention.places.block_size +
                       key.place;
  return static_cast<uint32_t>(slot *
                               (attention.head_dim * static_cast<int>(sizeof(Element)) / 16));
}

// `columns`: of the cache's first key.
template <typename Element>
__device__ inline const Element* chunk_at(const Element* columns, uint32_t chunk) {
  return columns + static_cast<uint64_t>(chunk) * (16 / sizeof(Element));
}

// The keys of a piece that a lane copies.
template <typename Element>
struct LaneKeys {
  uint32_t chunks[kLaneKeys];
  uint32_t seen;  // one bit for each key
  uint32_t later;
  bool all_seen;  // by the warp, and there are no keys for later

  __device__ void set(const Job& job, int kv_head, const OwnKey& key) {
    const uint32_t own_chunk = chunk_of_key<Element>(job, kv_head, key);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint32_t warp_seen = __ballot_sync(0xffffffffU, key.seen);
    const uint32_t warp_later = __ballot_sync(0xffffffffU, key.later);
    seen = 0;
    later = 0;
#pragma unroll
    for (int i = 0; i < kLaneKeys; ++i) {
      const int from = i * 4 + lane / 8;
      seen |= (warp_seen >> from & 1) << i;
      later |= (warp_later >> from & 1) << i;
      chunks[i] = __shfl_sync(0xffffffffU, own_chunk, from) + static_cast<uint32_t>(lane % 8);
    }
    all_seen = warp_seen == 0xffffffffU && warp_later == 0;
  }
};

// Where a lane's key i of a piece goes: the chunks of odd and even groups of four keys are
// exchanged differently.
__device__ inline uint32_t target_of(uint32_t lane_target, int i) {
  return (lane_target ^ static_cast<uint32_t>(i % 2 * 64)) + static_cast<uint32_t>(i * 4 * 128);
}

// `columns`: those of the piece, of the cache's first key. kPlain: every row sees every key and no
// column is missing; otherwise only `taken`, one bit for each key, zeros where nothing is seen.
// kOnce: many sequences' keys pass through L2 once, and would drive out what segments leave there.
template <bool kPlain, bool kOnce, typename Element>
__device__ void copy_piece(const LaneKeys<Element>& keys, uint32_t taken, const Element* columns,
                           bool has_column, uint32_t lane_target, uint64_t once) {
#pragma unroll
  for (int i = 0; i < kLaneKeys; ++i) {
    const uint32_t target = target_of(lane_target, i);
    const Element* const source = chunk_at(columns, keys.chunks[i]);
    const bool is_taken = (taken >> i & 1) != 0;
    const bool is_valid = (keys.seen >> i & 1) != 0 && has_column;
    if constexpr (kPlain && kOnce)
      ptx::copy_async_once(target, source, once);
    else if constexpr (kPlain)
      ptx::copy_async(target, source);
    else if constexpr (kOnce)
      ptx::copy_async_once_if(is_taken, target, source, is_valid, once);
    else
      ptx::copy_async_if(is_taken, target, source, is_valid);
  }
}

// The pieces of an item, one after the other.
template <typename P>
struct ItemPieces {
  using Element = typename P::Element;
  const Element* k;
  const Element* v;
  int first_column;  // of the item's values
  int head_dim;
  int count;

  __device__ ItemPieces(const Job& job, const WorkList& list, const Item& item)
      : k(static_cast<const Element*>(job.attention.kv.k)),
        v(static_cast<const Element*>(job.attention.kv.v)),
        head_dim(job.attention.head_dim) {
    const int value_pieces = P::kPieces / list.column_parts;
    first_column = item.column_part * value_pieces * P::kPieceColumns;
    count = (P::kPieces + value_pieces) * P::kHalves;
  }
  __device__ int column(int piece) const {
    const int block = piece / P::kHalves;
    return block < P::kPieces ? block * P::kPieceColumns
                              : first_column + (block - P::kPieces) * P::kPieceColumns;
  }
  __device__ const Element* columns(int piece) const {
    return (piece >= P::kPieces * P::kHalves ? v : k) + column(piece);
  }
  // Of the chunk that the lane copies.
  __device__ bool has_column(int piece) const {
    return column(piece) + static_cast<int>(threadIdx.x) % 8 * (P::kPieceColumns / 8) < head_dim;
  }
};

// Where the lane's first key of a piece begins.
__device__ inline uint32_t lane_offset() {
  const int thread = static_cast<int>(threadIdx.x - kComputing);
  const int key = thread / 32 * 32 + thread % 32 / 8;
  return static_cast<uint32_t>(key * 128 + (thread % 8 ^ key % 8) * 16);
}

// Pieces `begin` to `end` - 1 of an item into the ring; fresh keys left out if `old_only`.
template <typename P, bool kPlain, bool kWaits>
__device__ void copy_pieces(const ItemPieces<P>& pieces,
                            const LaneKeys<typename P::Element> (&keys)[P::kHalves], int begin,
                            int end, bool old_only, Ring& ring) {
  const uint32_t lane_at = lane_offset();
  const uint64_t once = P::kLong ? ptx::evict_first_policy() : 0;
#pragma unroll 1
  for (int p = begin; p < end; p += P::kHalves)
#pragma unroll
    for (int half = 0; half < P::kHalves; ++half) {
      if (half > 0 && p + half >= end) break;
      if (kWaits) ring.wait_empty();
      copy_piece<kPlain, P::kLong>(keys[half], old_only ? ~keys[half].later : ~0U,
                                   pieces.columns(p), pieces.has_column(p),
                                   ring.address() + lane_at, once);
      ptx::copy_arrive(ring.full());
      ring.advance();
    }
}

// How many pieces of its first item a thread block copies before the wait.
template <typename P>
__device__ int pieces_ahead(const Job& job, const ItemPieces<P>& pieces) {
  return min(job.ring_size / P::kHalves * P::kHalves, pieces.count);
}

// The pieces ahead, without fresh keys: the warps that compute bring those (FreshKeys).
template <typename P>
__device__ int copy_ahead(const Job& job, const ItemPieces<P>& pieces,
                          const LaneKeys<typename P::Element> (&keys)[P::kHalves],
                          const OwnKey (&own)[P::kHalves], int kv_head, bool plain, Ring& ring) {
  const int count = pieces_ahead<P>(job, pieces);
  if (plain)
    copy_pieces<P, true, false>(pieces, keys, 0, count, false, ring);
  else
    copy_pieces<P, false, false>(pieces, keys, 0, count, true, ring);
  // A little more, so as not to delay what comes after the wait.
  for (int p = count; p < min(count + 4, pieces.count); p += P::kHalves)
#pragma unroll
    for (int half = 0; half < P::kHalves; ++half)
      if (own[half].seen && !own[half].later)
        ptx::prefetch(chunk_at(pieces.columns(p),
                               chunk_of_key<typename P::Element>(job, kv_head, own[half])));
  wait_for_previous();
  return count;
}

// The fresh keys of the pieces ahead, a warp that computes for each, or for two of them where most
// tiles have more rows than there are warps: few bytes, which come with the queries. Where they lie
// is known before the wait.
template <typename P>
struct FreshKeys {
  static constexpr int kWarps = kComputing / 32;
  static constexpr int kKeysOfWarp = P::kMostPairs == kMediumPairs ? 2 : 1;  // keys of a warp
  static constexpr int kMostChunks = (2 * P::kPieces + 3) / 4;               // of a lane and key
  const ItemPieces<P> pieces;
  int count;  // of pieces
  int key;    // this warp's first
  int end;
  OwnKey own[kKeysOfWarp];
  uint4 values[kKeysOfWarp][kMostChunks];

  __device__ FreshKeys(const Job& job, const WorkList& list, const Item& item)
      : pieces(job, list, item), count(pieces_ahead<P>(job, pieces)) {
    const Entry& entry = list.entries[item.entry];
    const int first = item.segment * P::kKeys;
    end = min(first + P::kKeys, entry.last_key + 1);
    key = end;  // no key is fresh: fresh_key is the largest integer
    if (entry.fresh_key < end)
      key = max(first, entry.fresh_key) + static_cast<int>(threadIdx.x) / 32;
    locate_own(job, entry);
  }
  __device__ int own_key(int o) const { return key + o * kWarps; }
  __device__ void locate_own(const Job& job, const Entry& entry) {
#pragma unroll
    for (int o = 0; o < kKeysOfWarp; ++o)
      if (own_key(o) < end) own[o] = locate(job, entry, own_key(o));
  }
  // Piece of the lane's i-th chunk, which is chunk `column` there.
  __device__ int piece(int o, int i) const {
    const int half = own_key(o) % P::kKeys / 128;
    return (i * 32 + static_cast<int>(threadIdx.x) % 32) / 8 * P::kHalves + half;
  }
  __device__ int column() const { return static_cast<int>(threadIdx.x) % 8; }

  __device__ void load(const Job& job, int kv_head) {
#pragma unroll
    for (int o = 0; o < kKeysOfWarp; ++o) {
      const uint32_t chunk =
          chunk_of_key<typename P::Element>(job, kv_head, own[o]) + static_cast<uint32_t>(column());
#pragma unroll
      for (int i = 0; i < kMostChunks; ++i)
        if (own_key(o) < end && piece(o, i) < count && pieces.has_column(piece(o, i)))
          values[o][i] =
              *reinterpret_cast<const uint4*>(chunk_at(pieces.columns(piece(o, i)), chunk));
        else
          values[o][i] = uint4{};
    }
  }
  __device__ void store(uint32_t shared) const {
#pragma unroll
    for (int o = 0; o < kKeysOfWarp; ++o)
#pragma unroll
      for (int i = 0; i < kMostChunks; ++i)
        if (own_key(o) < end && piece(o, i) < count)
          ptx::store_shared(
              shared + P::kRingAt +
                  static_cast<uint32_t>(piece(o, i) * kPieceBytes + own_key(o) % 128 * 128 +
                                        (column() ^ own_key(o) % 8) * 16),
              values[o][i]);
  }
  // Those of rows that are no neighbours.
  __device__ void copy_others(const Job& job, const WorkList& list, const Item& item,
                              uint32_t shared) {
    for (key += kKeysOfWarp * kWarps; key < end; key += kKeysOfWarp * kWarps) {
      locate_own(job, list.entries[item.entry]);
      load(job, kv_head_of(job, item));
      store(shared);
    }
  }
};

// Eight columns of a query.
template <typename P>
__device__ inline void store_query(const Job& job, uint32_t queries, int pairs, int pair,
                                   int column, const uint4& values) {
  const uint32_t target = queries + query_at<P>(pairs, pair, column);
  if constexpr (P::kE4m3) {
    const float scale = job.attention.query_scale;
    const ptx::TwoCodes codes[4] = {query_codes(values.x, scale), query_codes(values.y, scale),
                                    query_codes(values.z, scale), query_codes(values.w, scale)};
    ptx::store_shared(
        target, uint2{codes[0].high | codes[1].high << 16, codes[2].high | codes[3].high << 16});
    ptx::store_shared(target + kLowAt,
                      uint2{codes[0].low | codes[1].low << 16, codes[2].low | codes[3].low << 16});
  } else {
    ptx::store_shared(target, values);
  }
}

// The queries of an item's pairs.
template <typename P>
__device__ void copy_queries(const Job& job, const Entry& entry, int group, uint32_t target) {
  const Attention& attention = job.attention;
  constexpr int kChunks = P::kPieces * P::kPieceColumns / 8;
  const int num_pairs = entry.num_rows * job.group;
  const int pairs = num_pairs <= 16 ? min(P::kMostPairs, 16) : P::kMostPairs;
  const int thread = static_cast<int>(threadIdx.x - kComputing);
#pragma unroll
  for (int begin = 0; begin < P::kMostPairs * kChunks; begin += 128) {
    const int pair = (begin + thread) / kChunks;
    const int chunk = (begin + thread) % kChunks;
    if (pair >= pairs) break;
    const auto row = static_cast<int>(job.by_group.quotient(static_cast<unsigned>(pair)));
    const bool exists = pair < num_pairs && chunk * 8 < attention.head_dim;
    const int index = exists ? (entry.first_row + row) * attention.num_heads + group * job.group +
                                   pair - row * job.group
                             : 0;
    ptx::copy_async(target + query_at<P>(pairs, pair, chunk * 8),
                    attention.q + static_cast<int64_t>(index) * attention.head_dim + chunk * 8,
                    exists);
  }
}

// One thread draws items, each while the item two before it is copied, so that it is known when its
// keys are looked up.
template <typename P>
struct Draws {
  typename P::Control& control;
  bool active;
  int number = -1;  // of the item being drawn; below zero: none
  int ticket = 0;

  __device__ Draws(typename P::Control& control_in, bool is_thread)
      : control(control_in),
        active(P::kLong && is_thread && control.list.first_drawn < control.list.num_items) {}
  // While item `current` of the thread block is copied. The answer takes its time.
  __device__ void begin(const Job& job, int current) {
    number = current + 2 - control.list.count;
    if (active && number >= 0) ticket = atomicAdd(job.attention.next_item, 1);
  }
  __device__ void finish() {
    if (!active || number < 0) return;
    const WorkList& list = control.list;
    const int index = list.first_drawn + ticket;
    Item item{-1, 0, 0, 0};
    if (index < list.num_items) item = item_at<P::kKeys>(list, index, list.num_entries - 1);
    control.drawn.put(number, item);
  }
};

// Segments of the thread block's items. With an early plan, as much of the first one as the ring
// holds is copied while the kernels before finish.
template <typename P>
__device__ void copy_all(const Job& job, typename P::Control& control, uint32_t shared) {
  const int thread = static_cast<int>(threadIdx.x - kComputing);
  const WorkList& list = control.list;
  Ring ring = ring_of<P>(job, shared);
  const auto locate_all = [&](const Item& item, OwnKey(&own)[P::kHalves]) {
#pragma unroll
    for (int half = 0; half < P::kHalves; ++half)
      own[half] =
          locate(job, list.entries[item.entry], item.segment * P::kKeys + half * 128 + thread);
  };
  bool must_wait = begins_early<P>(job);
  Item item{};
  OwnKey own[P::kHalves];
  bool more = list.count > 0;
  if (more) {
    item = first_item_of<P::kKeys>(list);
    locate_all(item, own);
  }
  bool is_new = false;  // its queries have been loaded by the warps that compute
  int query_place = 0;
  Draws<P> draws(control, thread == 0);
  for (int i = 0; more; ++i) {
    LaneKeys<typename P::Element> keys[P::kHalves];
#pragma unroll
    for (int half = 0; half < P::kHalves; ++half)
      keys[half].set(job, kv_head_of(job, item), own[half]);
    const ItemPieces<P> pieces(job, list, item);
    const bool plain = keys[0].all_seen && keys[P::kHalves - 1].all_seen &&
                       job.attention.head_dim == P::kPieces * P::kPieceColumns;
    const int first =
        must_wait ? copy_ahead<P>(job, pieces, keys, own, kv_head_of(job, item), plain, ring) : 0;
    must_wait = false;
    if (P::kCopiesQueries && is_new) {
      query_place ^= 1;
      ring.wait_empty();
      copy_queries<P>(job, list.entries[item.entry], item.group,
                      shared + P::queries_at(query_place, job.ring_size));
    }
    draws.begin(job, i);
    // The next item's places are on their way meanwhile.
    more = go_to<P>(job, control, i + 1, item, is_new);
    if (more) locate_all(item, own);
    if (plain)
      copy_pieces<P, true, true>(pieces, keys, first, pieces.count, false, ring);
    else
      copy_pieces<P, false, true>(pieces, keys, first, pieces.count, false, ring);
    draws.finish();
  }
  if (must_wait) wait_for_previous();
  ptx::copy_commit();
  ptx::copy_wait(0);  // none outlives its thread
}

}  // namespace tandem::ops::cuda::segment
