// Some ids of a head times all rows, each sum in the order of product(): what a screen leaves in
// doubt (head_confirm.cu, head_likeliest.cu).
#pragma once

#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/product_shape.cuh"

namespace tandem::ops::cuda::confirm {

inline constexpr int kThreads = 256;  // all of them read; the first warpgroups multiply
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kGroupThreads = 128;   // of a warpgroup
inline constexpr int kGroupIds = 64;        // that it multiplies at once
inline constexpr int kStepBytes = 64;       // of an id and 16 inputs, what belongs to another too
inline constexpr int kTileStepBytes = 256;  // of 8 rows and 16 inputs
inline constexpr int kTogether = 4;         // steps that are loaded, then multiplied

// A head of BF16 and the operand that it is multiplied with.
struct Factors {
  const uint8_t* weights;
  Partials plan;
  const uint8_t* operand;
  int chunk_bytes;  // of shared memory, for weights and rows on their way
};
inline Factors factors_of(const PackedLinear& head, const void* operand) {
  return {head.data.as<uint8_t>(), head.partials(nullptr, 8), static_cast<const uint8_t*>(operand),
          0};
}

// In shared memory.
template <int kTiles, int kGroups>
struct Room {
  static constexpr int kIds = kGroups * kGroupIds;
  int splits[kIds];  // the step that begins an id's second piece, or 0
  alignas(16) float sums[kIds][kTiles * 8];
};

__device__ inline void copy_chunk(uint32_t target, const void* source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
}
__device__ inline void wait_for_chunks() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// Where an id's bytes lie within a step of its group of 16.
__device__ inline int lane_of(int id) {
  return id % 8 * 4;
}
__device__ inline bool is_upper(int id) {
  return id % 16 >= 8;
}
// The bytes of inputs 0 .. 15 of an id that a lane % 4 takes; those of step s are
// s / 2 * 8192 + s % 2 * 512 behind them.
__device__ inline const uint8_t* lane_weights(const Factors& factors, int id, int lane) {
  const int64_t first = static_cast<int64_t>(id / kSetColumns) * factors.plan.set_blocks;
  return factors.weights + first * 8192 + id % kSetColumns / 16 * 1024 +
         (lane_of(id) + lane % 4) * 16;
}

// Where shares of the weights end within a set, product() adds two sums up.
__device__ inline int split_of(const Partials& plan, int id) {
  const int first = id / kSetColumns * plan.set_blocks;
  const int next = plan.share_begin(plan.share_of(first) + 1) - first;
  return next < plan.set_blocks ? next * 2 : 0;
}

// Ids of a list. Some steps of theirs at once are in shared memory: the weights,
// [count][steps + 1] steps, and behind them the rows.
template <int kTiles>
struct Together {
  static constexpr int kRowsOfStep = kTiles * kTileStepBytes;
  const int32_t* ids;
  int count;
  uint32_t weights;
  int steps;  // most at once, even

  __device__ Together(const Factors& factors, const int32_t* ids_in, int count_in, uint32_t chunk)
      : ids(ids_in),
        count(count_in),
        weights(chunk),
        steps(min((factors.chunk_bytes - count * kStepBytes - 128) /
                      (count * kStepBytes + kRowsOfStep) / 2 * 2,
                  factors.plan.set_blocks * 2)) {}
  // Odd in units of 64 bytes: neighbours lie in different banks.
  __device__ uint32_t place(int i) const { return weights + i * (steps + 1) * kStepBytes; }
  __device__ uint32_t rows() const { return (place(count) + 127) / 128 * 128; }

  // Of steps [begin, end), to places `offset` bytes behind: the rows, by one thread.
  __device__ void gather_rows(const Factors& factors, int begin, int end, uint32_t rows_full,
                              uint32_t offset) const {
    const int bytes = (end - begin) * kRowsOfStep;
    ptx::barrier_arrive_expect(rows_full, static_cast<uint32_t>(bytes));
    ptx::bulk_copy(rows() + offset, factors.operand + static_cast<int64_t>(begin) * kRowsOfStep,
                   static_cast<uint32_t>(bytes), rows_full);
  }
  // The weights, a warp for each id.
  __device__ void gather_weights(const Factors& factors, int thread, int num_warps, int begin,
                                 int end, uint32_t offset) const {
    const int lane = thread % 32;
#pragma unroll 1
    for (int i = thread / 32; i < count; i += num_warps) {
      const uint8_t* const own = lane_weights(factors, ids[i], lane);
#pragma unroll 2
      for (int step = begin + lane / 4; step < end; step += 8)
        copy_chunk(place(i) + offset + (step - begin) * kStepBytes + lane % 4 * 16,
                   own + static_cast<int64_t>(step / 2) * 8192 + step % 2 * 512);
    }
  }
  __device__ void gather(const Factors& factors, int begin, int end, uint32_t rows_full) const {
    if (threadIdx.x == 0) gather_rows(factors, begin, end, rows_full, 0);
    gather_weights(factors, static_cast<int>(threadIdx.x), kWarps, begin, end, 0);
  }
};

// One of the two ids whose weights a lane takes; where there is none, it takes those of the first,
// for nothing.
struct LaneId {
  uint32_t place;
  int split;
  bool upper;

  template <int kTiles>
  __device__ LaneId(const Together<kTiles>& together, const int* splits, int index_in) {
    const int index = index_in < together.count ? index_in : 0;
    split = splits[index];
    place = together.place(index) + threadIdx.x % 4 * 16;
    upper = is_upper(together.ids[index]);
  }
  __device__ uint2 load(int step) const {
    const uint4 both = ptx::load_shared(place + step * kStepBytes);
    return upper ? make_uint2(both.y, both.w) : make_uint2(both.x, both.z);
  }
};

// The sums of a warpgroup's ids. With kGroups the second group has ids 64 .. 127.
template <int kTiles, int kGroups>
class Multiplier {
 public:
  using Left = Room<kTiles, kGroups>;

  __device__ Multiplier(const Together<kTiles>& together, const Left& room)
      : low_(together, room.splits, first_index()),
        high_(together, room.splits, first_index() + 8),
        count_(together.count),
        rows_(together.rows()) {}

  // Steps [begin, end), which are gathered.
  __device__ void add(Left& room, int begin, int end) {
#pragma unroll 1
    for (int at = begin; at < end;) {
      const int next = next_split(room, at, end);
      add_run(at - begin, next - begin);
      at = next;
      begin_second_piece(room, low_, 0, at);
      begin_second_piece(room, high_, 1, at);
    }
  }
  // As add(), of a gathering at other places: `bytes` behind those so far.
  __device__ void move(int bytes) {
    low_.place += bytes;
    high_.place += bytes;
    rows_ += bytes;
  }
  // Leaves the logits of its ids, before scale and cap.
  __device__ void leave(Left& room) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool adds = (half == 0 ? low_ : high_).split > 0;
      for_row_pairs(room, half, [&](float2& place, float one, float other) {
        const float2 before = adds ? place : make_float2(0.0F, 0.0F);
        place = adds ? make_float2(before.x + one, before.y + other) : make_float2(one, other);
      });
    }
  }

 private:
  struct Steps {
    uint4 a[kTogether];
  };

  __device__ static int first_index() {
    return static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
  }
  // The next step behind `at` that begins a second piece, or `end`.
  __device__ int next_split(const Left& room, int at, int end) const {
    int next = end;
    if constexpr (kGroups == 1) {
#pragma unroll 1
      for (int i = 0; i < count_; ++i)
        if (room.splits[i] > at) next = min(next, room.splits[i]);
    } else {
      const int lane = static_cast<int>(threadIdx.x) % 32;
      for (int i = lane; i < count_; i += 32)
        if (room.splits[i] > at) next = min(next, room.splits[i]);
      next = __reduce_min_sync(0xffffffffU, next);
    }
    return next;
  }
  template <typename Visit>
  __device__ void for_row_pairs(Left& room, int half, const Visit& visit) const {
    const int row = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
      visit(*reinterpret_cast<float2*>(&room.sums[first_index() + half * 8][tile * 8 + row]),
            sums_[tile * 4 + half * 2], sums_[tile * 4 + half * 2 + 1]);
  }
  // The sums of the first one wait in shared memory.
  __device__ void begin_second_piece(Left& room, const LaneId& id, int half, int at) {
    const bool begins = id.split == at;
    if (begins)
      for_row_pairs(room, half,
                    [](float2& place, float one, float other) { place = make_float2(one, other); });
    __syncwarp();
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      sums_[tile * 4 + half * 2] = begins ? 0.0F : sums_[tile * 4 + half * 2];
      sums_[tile * 4 + half * 2 + 1] = begins ? 0.0F : sums_[tile * 4 + half * 2 + 1];
    }
  }
  // From `step` of those gathered on.
  template <int kCount>
  __device__ void load(Steps& steps, int step) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const uint2 low = low_.load(step + i);
      const uint2 high = high_.load(step + i);
      steps.a[i] = {low.x, high.x, low.y, high.y};
    }
    ptx::pin(steps.a);
  }
  __device__ uint64_t rows_at(int step) const {
    constexpr int kBlockBytes = 2 * Together<kTiles>::kRowsOfStep;
    return ptx::rows_of(rows_ + step / 2 * kBlockBytes + step % 2 * kTileStepBytes,
                        2 * kTileStepBytes);
  }
  template <int kCount>
  __device__ void multiply(const Steps& steps, int step) {
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kCount; ++i) ptx::wgmma_bf16_inputs(sums_, steps.a[i], rows_at(step + i));
    ptx::warpgroup_commit();
  }
  // The weights of the next steps are loaded while these are multiplied. Two sets of registers, and
  // never a copy from one to the other: products read them until they are waited for.
  __device__ void add_run(int at, int end) {
    Steps even;
    Steps odd;
    ptx::pin(sums_);
    if (end - at >= 2 * kTogether) load<kTogether>(even, at);
#pragma unroll 1
    for (; end - at >= 2 * kTogether; at += 2 * kTogether) {
      multiply<kTogether>(even, at);
      load<kTogether>(odd, at + kTogether);
      ptx::warpgroup_wait<0>();
      ptx::pin(even.a);
      multiply<kTogether>(odd, at + kTogether);
      if (end - at >= 4 * kTogether) load<kTogether>(even, at + 2 * kTogether);
      ptx::warpgroup_wait<0>();
      ptx::pin(odd.a);
    }
#pragma unroll 1
    for (; at < end; ++at) {
      load<1>(even, at);
      multiply<1>(even, at);
      ptx::warpgroup_wait<0>();
      ptx::pin(even.a);
    }
    ptx::pin(sums_);
  }

  LaneId low_, high_;
  int count_;
  uint32_t rows_;
  float sums_[kTiles * 4] = {};
};

}  // namespace tandem::ops::cuda::confirm
