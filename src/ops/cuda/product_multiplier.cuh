// The two warpgroups of the product of few rows (product.cu) that multiply, and a thread block's
// whole share: what becomes of the sums of a set is the kernel's own.
#pragma once

#include "ops/cuda/product_blocks.cuh"
#include "ops/cuda/product_copies.cuh"

namespace tandem::ops::cuda::few {

// The stages of a piece, in order. What a stage costs beside its products counts: a warp's
// instructions, and the waits for barriers, shared memory and tensor cores one after the other.
template <typename S>
struct Multiplier {
  static constexpr int kStage = S::kStageBlocks;

  Ring<S> ring;
  uint32_t own_weights;  // of the first stage
  RingPlace<S::kStages> place = {};

  __device__ explicit Multiplier(Ring<S> ring_in)
      : ring(ring_in), own_weights(lane_bytes<S>(ring_in.weights(0))) {}
  __device__ uint32_t weights(int stage) const {
    return own_weights + stage * (kStage * S::kBlockBytes);
  }
  __device__ void give_back(int stage) const {
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(ring.empty(stage));
  }

  __device__ void two_stages(float (&sums)[S::kTiles * 4]) {
    RingPlace<S::kStages> next = place;
    next.advance();
    ptx::barrier_wait(ring.full(place.stage), place.parity);
    const Blocks<S, kStage> first(weights(place.stage), ring.rows(place.stage, 0));
    ptx::barrier_wait(ring.full(next.stage), next.parity);
    const Blocks<S, kStage> second(weights(next.stage), ring.rows(next.stage, 0));
    add_two<S>(sums, first, second);
    __syncwarp();
    give_back(place.stage);
    give_back(next.stage);
    place = next;
    place.advance();
  }
  // A stage in registers.
  struct Stage {
    Blocks<S, kStage> blocks;
    int place = -1;
  };
  __device__ Stage next_stage() {
    ptx::barrier_wait(ring.full(place.stage), place.parity);
    const Stage stage{Blocks<S, kStage>(weights(place.stage), ring.rows(place.stage, 0)),
                      place.stage};
    place.advance();
    return stage;
  }
  __device__ static void start(PartProducts<S>& products, const Stage& stage, int part) {
    ptx::pin(products);
    ptx::warpgroup_fence();
    start_part<S>(products, stage.blocks, part);
  }
  __device__ void give_back(const Stage& stage) const {
    __syncwarp();
    give_back(stage.place);
  }
  // Adds up the stage whose first two parts are under way, the first one in products[kFirst], and
  // starts those of the next one.
  template <int kFirst>
  __device__ Stage follow(float (&sums)[S::kTiles * 4], PartProducts<S> (&products)[2],
                          const Stage& now) {
    Stage next;
#pragma unroll
    for (int part = 0; part < S::kParts; ++part) {
      PartProducts<S>& own = products[(kFirst + part) % 2];
      if (part + 2 == S::kParts) next = next_stage();
      ptx::warpgroup_wait<1>();
      if (part + 1 == S::kParts) give_back(now);
      add_part<S>(sums, own, part);
      if (part + 2 < S::kParts)
        start(own, now, part + 2);
      else
        start(own, next, part + 2 - S::kParts);
    }
    return next;
  }
  // The same without a next one.
  template <int kFirst>
  __device__ void finish(float (&sums)[S::kTiles * 4], PartProducts<S> (&products)[2],
                         const Stage& last) {
#pragma unroll
    for (int part = 0; part + 2 < S::kParts; ++part) {
      PartProducts<S>& own = products[(kFirst + part) % 2];
      ptx::warpgroup_wait<1>();
      add_part<S>(sums, own, part);
      start(own, last, part + 2);
    }
    ptx::warpgroup_wait<0>();
    give_back(last);
#pragma unroll
    for (int part = S::kParts - 2; part < S::kParts; ++part)
      add_part<S>(sums, products[(kFirst + part) % 2], part);
  }
  // The same sums as one stage after the other.
  __device__ void pipeline(float (&sums)[S::kTiles * 4], int num_stages) {
    constexpr int kSecond = S::kParts % 2;  // where the first part of every second stage is
    PartProducts<S> products[2];
    Stage stage = next_stage();
    start(products[0], stage, 0);
    start(products[1], stage, 1);
    // Paths that met before the end would make ptxas wait after every product.
#pragma unroll 1
    for (; num_stages > 2; num_stages -= 2) {
      const Stage second = follow<0>(sums, products, stage);
      stage = follow<kSecond>(sums, products, second);
    }
    if (num_stages == 2)
      finish<kSecond>(sums, products, follow<0>(sums, products, stage));
    else
      finish<0>(sums, products, stage);
  }
  // Pairs of stages of BF16 rows: the next one comes to registers while the products of one run.
  __device__ void chain(float (&sums)[S::kTiles * 4], int num_pairs) {
    Stage even;
    Stage odd;
    ptx::pin(sums);
#pragma unroll 1
    for (; num_pairs > 0; --num_pairs) {
      even = next_stage();
      add_behind(sums, even, odd);
      odd = next_stage();
      add_behind(sums, odd, even);
    }
    ptx::warpgroup_wait<0>();
    ptx::pin(odd.blocks.a);
    ptx::pin(sums);
    give_back(odd);
  }
  __device__ void add_behind(float (&sums)[S::kTiles * 4], const Stage& now, Stage& before) {
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kStage * 2; ++i) now.blocks.multiply_bf16(sums, i);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<1>();
    ptx::pin(before.blocks.a);
    __syncwarp();
    if (threadIdx.x % 32 == 0 && before.place >= 0) ptx::barrier_arrive(ring.empty(before.place));
  }
  // `count` blocks, from block `within` of the set on.
  __device__ void one_stage(float (&sums)[S::kTiles * 4], int within, int count) {
    ptx::barrier_wait(ring.full(place.stage), place.parity);
    with_count<kStage>(count, [&](auto blocks) {
      add_blocks<S, blocks>(
          sums, Blocks<S, blocks>(weights(place.stage), ring.rows(place.stage, within)));
    });
    __syncwarp();
    give_back(place.stage);
    place.advance();
  }
  __device__ void piece(float (&sums)[S::kTiles * 4], int begin, int end) {
    while (begin < end) {
      if constexpr (S::kTwoStages) {
        if (begin % kStage == 0) {
#pragma unroll 1
          for (; end - begin >= 2 * kStage; begin += 2 * kStage) two_stages(sums);
          if (begin == end) break;
        }
      }
      if constexpr (S::kChained) {
        const int pairs = begin % kStage == 0 ? (end - begin) / (2 * kStage) : 0;
        if (pairs > 0) {
          chain(sums, pairs);
          begin += pairs * (2 * kStage);
          continue;
        }
      }
      if constexpr (S::kPipelined) {
        const int whole = begin % kStage == 0 ? (end - begin) / kStage : 0;
        if (whole > 0) {
          pipeline(sums, whole);
          begin += whole * kStage;
          continue;
        }
      }
      const int count = min(kStage - begin % kStage, end - begin);
      one_stage(sums, begin, count);
      begin += count;
    }
  }
};

// visitor.begin(piece) comes before the products of a piece, visitor.finish(sums, piece, ring,
// place) when they are complete; `place` is the ring's next one.
template <typename S, typename Visitor>
__device__ void compute_share(const Job& job, int begin, int end, Ring<S> ring, Visitor& visitor) {
  float sums[S::kTiles * 4] = {};
  Multiplier<S> multiplier(ring);
  bool is_first = true;
  ptx::barrier_wait(ring.first_rows(), 0);
  for (Piece piece(begin, end, job.plan.set_blocks); piece.exists();
       piece = piece.before(begin, job.plan.set_blocks)) {
    visitor.begin(piece);
    int from = piece.begin;
    if (S::kSplitsRows && is_first) {
      from = min(from + S::kStageBlocks - from % S::kStageBlocks, piece.end);
      multiplier.piece(sums, piece.begin, from);
      ptx::barrier_wait(ring.other_rows(), 0);
      is_first = false;
    }
    multiplier.piece(sums, from, piece.end);
    visitor.finish(sums, piece, ring, multiplier.place);
#pragma unroll
    for (float& sum : sums) sum = 0.0F;
  }
}

// A thread block's share. Returns to those who multiply when all of it is done, and to the others.
template <typename S, typename Visitor>
__device__ void work_on(const Job& job, Ring<S> ring, Visitor visitor) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < S::kStages; ++stage) {
      ptx::barrier_init(ring.full(stage), 1);
      ptx::barrier_init(ring.empty(stage), kWarps);
    }
    ptx::barrier_init(ring.first_rows(), 1);
    ptx::barrier_init(ring.other_rows(), 1);
    ptx::barrier_init(ring.turn(), 1);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  const int begin = job.plan.share_begin(static_cast<int>(blockIdx.x));
  const int end = job.plan.share_begin(static_cast<int>(blockIdx.x) + 1);
  if (threadIdx.x >= kWarps * 32) {
    if constexpr (S::kPipelined) ptx::lower_registers<40>();
    if (threadIdx.x == kWarps * 32) copy_share<S>(job, begin, end, ring);
    return;
  }
  if constexpr (S::kPipelined) ptx::raise_registers<232>();
  wait_for_previous();  // what the last product left has been read
  if (threadIdx.x == 0) ptx::barrier_arrive(ring.turn());
  compute_share<S>(job, begin, end, ring, visitor);
}

}  // namespace tandem::ops::cuda::few
