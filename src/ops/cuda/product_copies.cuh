// The thread of the product of few rows (product.cu) that copies: one run of weights, and the rows
// that go with them.
#pragma once

#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/product_shape.cuh"

namespace tandem::ops::cuda::few {

// Before the kernels in front have finished weights come alone: their rows follow by a barrier of
// their own.
template <typename S>
struct Copies {
  using ShareWalk = Walk<S::kStageBlocks>;
  const Job& job;
  Ring<S> ring;
  uint64_t policy = ptx::evict_first_policy();
  RingPlace<S::kStages> place = {};

  __device__ void wait_for_room() { ptx::barrier_wait(ring.empty(place.stage), place.parity ^ 1); }
  __device__ void copy_weights(const ShareWalk& walk, uint32_t row_bytes) {
    const uint32_t bytes = walk.count * S::kBlockBytes;
    ptx::barrier_arrive_expect(ring.full(place.stage), bytes + row_bytes);
    ptx::bulk_copy(ring.weights(place.stage),
                   job.weights + static_cast<int64_t>(walk.block()) * S::kBlockBytes, bytes,
                   ring.full(place.stage), policy);
  }
  // Weights until the ring is full or the rows are there. Gives the number of stages.
  __device__ int fill(ShareWalk& walk) {
    int filled = 0;
    int blocks = 0;
    int first = 0;  // blocks whose rows are waited for first
    for (; filled < S::kStages && !walk.done() && !ptx::barrier_passed(ring.turn(), 0);
         ++filled, walk.advance(), place.advance()) {
      if (filled >= job.most_ahead) ptx::barrier_wait(ring.full(filled - job.most_ahead), 0);
      copy_weights(walk, 0);
      blocks += walk.count;
      if (!S::kSplitsRows || filled == 0) first = blocks;
    }
    ptx::barrier_arrive_expect(ring.first_rows(), first * S::kRowBytes);
    if (S::kSplitsRows)
      ptx::barrier_arrive_expect(ring.other_rows(), (blocks - first) * S::kRowBytes);
    return filled;
  }
  // Their rows, a copy for each piece: blocks that follow each other do so in the ring as well.
  __device__ void copy_first_rows(ShareWalk walk, int filled) {
    for (int stage = 0; stage < filled;) {
      const int first = stage;
      const int within = walk.within;
      int blocks = 0;
      for (bool ends = false; !ends && stage < filled; ++stage, walk.advance()) {
        blocks += walk.count;
        ends = walk.ends_piece() || (S::kSplitsRows && stage == 0);
      }
      ptx::bulk_copy(ring.rows(first, within),
                     job.operand + static_cast<int64_t>(within) * S::kRowBytes,
                     blocks * S::kRowBytes,
                     S::kSplitsRows && first > 0 ? ring.other_rows() : ring.first_rows());
    }
  }
  __device__ void copy_rest(ShareWalk& walk) {
    for (; !walk.done(); walk.advance(), place.advance()) {
      wait_for_room();
      const uint32_t row_bytes = walk.count * S::kRowBytes;
      copy_weights(walk, row_bytes);
      ptx::bulk_copy(ring.rows(place.stage, walk.within),
                     job.operand + static_cast<int64_t>(walk.within) * S::kRowBytes, row_bytes,
                     ring.full(place.stage));
    }
  }
  // What the block before this one has of the share's first set, which comes last.
  __device__ void copy_published() {
    const int share = static_cast<int>(blockIdx.x) - 1;
    uint32_t* const flag = flags_of(job) + share;
    while (ptx::load_acquire(flag) != kWarps) __nanosleep(20);
    *flag = 0;
    ptx::fence_async_global();
    for (int tile = 0; tile < S::kTiles; tile += S::stage_tiles(), place.advance()) {
      const uint32_t bytes = min(S::stage_tiles(), S::kTiles - tile) * kTileSumBytes;
      wait_for_room();
      ptx::barrier_arrive_expect(ring.full(place.stage), bytes);
      ptx::bulk_copy(ring.weights(place.stage), published<S>(job, share) + tile * kTileSumBytes,
                     bytes, ring.full(place.stage));
    }
  }
};

template <typename S>
__device__ void copy_share(const Job& job, int begin, int end, Ring<S> ring) {
  Copies<S> copies{job, ring};
  Walk<S::kStageBlocks> walk(begin, end, job.plan.set_blocks);
  const auto start = walk;
  const int filled = copies.fill(walk);
  wait_for_previous();
  ptx::fence_async_global();
  copies.copy_first_rows(start, filled);
  copies.copy_rest(walk);
  if constexpr (S::kGelu)
    if (begin % job.plan.set_blocks != 0) copies.copy_published();
}

}  // namespace tandem::ops::cuda::few
