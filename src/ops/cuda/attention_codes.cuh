// The eight warps of a thread block of attention (attention.cu) that bring keys and values of E4M3
// into the ring, where they become BF16. Four of them take every second piece: its bytes are copied
// into the first half of each warp's part of its place, and when they are there the warp widens
// them in place. A warp waits for everything it does, one after the other: hence two for each.
#pragma once

#include "ops/cuda/attention_copies.cuh"

namespace tandem::ops::cuda::segment {

// What a lane brings of a piece: 16 columns, lane % 4, of the keys i * 8 + lane / 4 of its warp's
// 32.
inline constexpr int kLaneCodeKeys = 4;

// The keys of a piece that a lane brings.
struct CodeKeys {
  uint32_t chunks[kLaneCodeKeys];
  uint32_t seen = 0;  // one bit for each key
  uint32_t later = 0;

  __device__ CodeKeys(const Job& job, int kv_head, const OwnKey& key) {
    const uint32_t own_chunk = chunk_of_key(job, kv_head, key);
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint32_t warp_seen = __ballot_sync(0xffffffffU, key.seen);
    const uint32_t warp_later = __ballot_sync(0xffffffffU, key.later);
#pragma unroll
    for (int i = 0; i < kLaneCodeKeys; ++i) {
      const int from = i * 8 + lane / 4;
      seen |= (warp_seen >> from & 1) << i;
      later |= (warp_later >> from & 1) << i;
      chunks[i] = __shfl_sync(0xffffffffU, own_chunk, from) + static_cast<uint32_t>(lane % 4 * 2);
    }
  }
};

// Every second piece, from its first bytes to BF16.
template <typename P>
struct CodePieces {
  int group;  // of warps: piece % 2
  int thread;
  Ring filling;   // the place of the next piece to copy
  Ring widening;  // and of the next one to widen
  int pending = 0;
  int since_look_up = 0;  // pieces whose copies have begun
  uint32_t block_at;      // of the thread's key
  uint32_t code_at;       // the lane's bytes in a place: of its first key
  uint32_t lane_at;       // where they belong

  __device__ CodePieces(const Job& job, uint32_t shared)
      : group(__shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x - kComputing) / 128, 0)),
        thread(static_cast<int>(threadIdx.x) % 128),
        filling(ring_of<P>(job, shared)),
        widening(filling) {
    if (group == 1) {
      filling.advance();
      widening.advance();
    }
    block_at = shared + P::kBlocksAt + static_cast<uint32_t>((group * 128 + thread) * 4);
    const int key = thread / 32 * 32 + thread % 32 / 4;
    code_at = static_cast<uint32_t>(thread / 32 * 32 * 128 + thread % 32 * 16);
    lane_at = static_cast<uint32_t>(key * 128 + (thread % 4 * 2 ^ key % 8) * 16);
  }

  // The thread's key of an item.
  template <typename LookUp>
  __device__ OwnKey locate_own(const Job& job, const WorkList& list, const Item& item,
                               const LookUp& look_up) const {
    const int half = P::kHalves > 1 ? group : 0;
    return locate(job, list.entries[item.entry], item.segment * P::kKeys + half * 128 + thread,
                  look_up);
  }
  // The same for the next item: its block is looked up while pieces of this one are brought, so
  // that no warp waits for it; take_block() then has it.
  __device__ OwnKey locate_next(const Job& job, const WorkList& list, const Item& item) {
    since_look_up = 0;
    return locate_own(job, list, item,
                      [&](const int32_t* source, int&) { ptx::copy_async_4(block_at, source); });
  }
  __device__ int take_block() {
    if (pending >= since_look_up) {  // few pieces since then
      ptx::copy_commit();
      ptx::copy_wait(0);
    }
    return ptx::load_shared_int(block_at);
  }
  // Only `taken`, one bit for each key. Bytes that nothing was copied to may be any: they become
  // numbers, for which no row has a weight.
  __device__ void copy(const ItemPieces<P>& pieces, int piece, const CodeKeys& keys,
                       uint32_t taken) {
    filling.wait_empty();
    const int column = pieces.column(piece) + thread % 4 * 16;
    if (column >= pieces.head_dim) taken = 0;
    const uint8_t* const columns = pieces.columns(piece);
#pragma unroll
    for (int i = 0; i < kLaneCodeKeys; ++i)
      ptx::copy_async_if((taken >> i & 1) != 0,
                         filling.address() + code_at + static_cast<uint32_t>(i * 512),
                         chunk_at(columns, keys.chunks[i]), true);
    ptx::copy_commit();
    filling.advance();
    filling.advance();
    ++pending;
    ++since_look_up;
  }
  // The piece that has waited longest.
  __device__ void widen() {
    --pending;
    if (pending >= 2)  // the rest, mostly
      ptx::copy_wait(2);
    else if (pending == 1)
      ptx::copy_wait(1);
    else
      ptx::copy_wait(0);
    const uint32_t place = widening.address();
    uint4 codes[kLaneCodeKeys];
#pragma unroll
    for (int i = 0; i < kLaneCodeKeys; ++i)
      codes[i] = ptx::load_shared(place + code_at + static_cast<uint32_t>(i * 512));
    __syncwarp();  // others' bytes are where this lane's columns go
#pragma unroll
    for (int i = 0; i < kLaneCodeKeys; ++i) {
      const uint32_t target = place + lane_at + static_cast<uint32_t>(i * 8 * 128);
      ptx::store_shared(target, widened(uint2{codes[i].x, codes[i].y}));
      ptx::store_shared(target ^ 16, widened(uint2{codes[i].z, codes[i].w}));
    }
    __syncwarp();
    if (thread % 32 == 0) ptx::barrier_arrive(widening.full());
    widening.advance();
    widening.advance();
  }
  // Every second piece of an item from `piece` on and before `end`; where it goes on. The last ones
  // stay as bytes unless `all`. Something else may be copied with the first one, to where no thread
  // needs anything once that has a place. One loop for everything: its code comes from memory once.
  template <typename CopyMore>
  __device__ int bring(const ItemPieces<P>& pieces, int piece, int end, const CodeKeys& keys,
                       uint32_t taken, int most, bool all, bool copies_more,
                       const CopyMore& copy_more) {
#pragma unroll 1
    while (true) {
      const bool is_over = piece >= end;
      if (is_over && (!all || pending == 0)) return piece;
      if (is_over || pending == most) {
        widen();
      } else {
        if (P::kLong && copies_more) {
          filling.wait_empty();
          copy_more();
          copies_more = false;
        }
        copy(pieces, piece, keys, taken);
        piece += 2;
      }
    }
  }
};

// How many pieces four warps have on their way at most. Those not widened yet must not be in the
// way of a product that needs kLeastRing pieces before it gives one back.
template <typename P>
__device__ int most_pending(const Job& job) {
  return min(3, (job.ring_size + 2 - P::kLeastRing) / 2);
}

// A little more than what is copied before the wait into L2, from this piece of the group on.
template <typename P>
__device__ void prefetch_more(const Job& job, const ItemPieces<P>& pieces, int piece, int kv_head,
                              const OwnKey& own, int group) {
  if (P::kHalves == 1) piece += group;  // 128 columns for each group
  if (piece < pieces.count && own.seen && !own.later)
    ptx::prefetch(chunk_at(pieces.columns(piece), chunk_of_key(job, kv_head, own)));
}

// copy_all() for E4M3.
template <typename P>
__device__ void widen_all(const Job& job, typename P::Control& control, uint32_t shared) {
  const WorkList& list = control.list;
  CodePieces<P> codes(job, shared);
  bool must_wait = job.rows.early_plan;
  bool more = list.count > 0;
  Item item{};
  OwnKey own;
  if (more) {
    item = first_item_of<P::kKeys>(list);
    own = codes.locate_own(job, list, item,
                           [](const int32_t* source, int& block) { block = *source; });
  }
  bool is_new = false;
  int query_place = 0;
  Draws<P> draws(control, threadIdx.x == kComputing);
  for (int i = 0; more; ++i) {
    const int kv_head = kv_head_of(job, item);
    if (i > 0) own.block = codes.take_block();
    const CodeKeys keys(job, kv_head, own);
    const ItemPieces<P> pieces(job, list, item);
    int piece = codes.group;
    const bool new_queries = P::kLong && is_new;
    const Item own_item = item;
    if (new_queries) query_place ^= 1;
    const auto copy_own_queries = [&] {
      copy_queries<P>(job, list.entries[own_item.entry], own_item.group,
                      shared + P::queries_at(query_place, job.ring_size));
    };
#pragma unroll 1
    for (bool ahead = must_wait;; ahead = false) {
      if (!ahead) {
        draws.begin(job, i);
        // The next item's places are on their way meanwhile.
        more = go_to<P>(job, control, i + 1, item, is_new);
        if (more) own = codes.locate_next(job, list, item);
      }
      piece = codes.bring(pieces, piece, ahead ? pieces_ahead<P>(job, pieces) : pieces.count, keys,
                          ahead ? keys.seen & ~keys.later : keys.seen,
                          ahead ? P::kRing : most_pending<P>(job), ahead || !more,
                          new_queries && codes.group == 0, copy_own_queries);
      if (!ahead) break;
      prefetch_more<P>(job, pieces, piece, kv_head, own, codes.group);
      wait_for_previous();
      must_wait = false;
    }
    draws.finish();
  }
  if (must_wait) wait_for_previous();
}

}  // namespace tandem::ops::cuda::segment
