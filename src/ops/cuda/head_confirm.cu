// The last kernel of a screened head (head_screen.h): whoever may still come first gets its logit
// from the head itself, with the bits of product().
#include <algorithm>

#include "ops/cuda/head_keys.cuh"
#include "ops/cuda/head_screen.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/product_shape.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kThreads = 256;  // all of them read; the first warpgroup multiplies
constexpr int kWarps = kThreads / 32;
constexpr int kMultiplyThreads = 128;
constexpr int kMostTogether = 64;            // ids that the warpgroup multiplies at once
constexpr int kSpan = kWarps * kSetColumns;  // ids that the warps look at at once
constexpr int kListedSpans = 2;              // before those who are listed are confirmed
constexpr int kStepBytes = 64;       // of an id and 16 inputs, what belongs to another id too
constexpr int kTileStepBytes = 256;  // of 8 rows and 16 inputs
constexpr int kTogether = 4;         // steps that are loaded, then multiplied
constexpr unsigned kAll = 0xffffffffU;
// Of a row. Sums with a longer one could overflow (kMostIntegerError).
constexpr float kMostLength = 1e20F;

template <int kTiles>
struct Small {
  static constexpr int kRows = kTiles * 8;
  uint64_t rows_full;
  Key keys[kRows];
  float floors[kRows];   // of each row: smaller logits cannot come first
  float lengths[kRows];  // |x|
  int count;
  int32_t ids[kListedSpans * kSpan];
  int splits[kMostTogether];  // the step that begins an id's second piece, or 0
  alignas(16) float sums[kMostTogether][kRows];
};
template <int kTiles>
constexpr int kSmallBytes = (sizeof(Small<kTiles>) + 127) / 128 * 128;

struct Job {
  const uint8_t* weights;
  Partials plan;
  const uint8_t* operand;
  HeadLogits logits;
  ScreenPlaces screen;
  ArgmaxScratch scratch;
  int32_t* tokens;
  DraftToken draft;
  int chunk_bytes;  // for weights and rows on their way
};

__device__ inline void copy_chunk(uint32_t target, const void* source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
}
__device__ inline void wait_for_chunks() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// Sets are dealt out to thread blocks one by one, since likely tokens lie beside each other.
__device__ inline int set_of(int span) {
  return (span * kWarps + static_cast<int>(threadIdx.x) / 32) * static_cast<int>(gridDim.x) +
         static_cast<int>(blockIdx.x);
}
__device__ inline int num_spans(const ScreenPlaces& screen) {
  const int ids_of_grid = kSpan * static_cast<int>(gridDim.x);
  return (screen.columns + ids_of_grid - 1) / ids_of_grid;
}

__device__ inline bool is_suppressed(const HeadLogits& head, int id) {
  bool found = false;
#pragma unroll 1
  for (int i = 0; i < head.num_suppressed; ++i) found = found || head.suppressed[i] == id;
  return found;
}

// Which of four ids may come first in a row. What is not comparable may.
__device__ inline unsigned who_may(const float4& logits, const float4& errors, float length,
                                   float floor) {
  const auto test = [&](float x, float error, unsigned bit) {
    return x + error * length < floor ? 0U : bit;
  };
  return test(logits.x, errors.x, 1) | test(logits.y, errors.y, 2) | test(logits.z, errors.z, 4) |
         test(logits.w, errors.w, 8);
}

// The same of this lane's four ids of a set in any row, where the screen left all logits.
template <int kTiles>
__device__ inline unsigned who_may_in_logits(const Job& job, const Small<kTiles>& small, int id,
                                             const float4& errors) {
  const ScreenPlaces& screen = job.screen;
  float4 logits[8];
#pragma unroll
  for (int row = 0; row < 8; ++row)
    logits[row] = load4_if(row < job.logits.num_rows,
                           screen.logits + static_cast<int64_t>(row) * screen.columns + id);
  unsigned may = 0;
#pragma unroll
  for (int row = 0; row < 8; ++row) {
    if (row >= job.logits.num_rows) break;
    may |= who_may(logits[row], errors, small.lengths[row], small.floors[row]);
  }
  return may;
}

// Where it left partial sums, and the largest logit of each set. Whole warps.
template <int kTiles>
__device__ inline unsigned who_may_in_sums(const Job& job, const Small<kTiles>& small, int set,
                                           const float4& errors) {
  const ScreenPlaces& screen = job.screen;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int id = set * kSetColumns + lane * 4;
  const float error = fmaxf(fmaxf(errors.x, errors.y), fmaxf(errors.z, errors.w));
  // Neither is negative, and their bits rise with them.
  const float most = __uint_as_float(__reduce_max_sync(kAll, __float_as_uint(error)));
  const float4 scales = *reinterpret_cast<const float4*>(screen.scales + id);
  const int pieces = screen.sums.num_pieces(set);
  unsigned may = 0;
#pragma unroll 1
  for (int begin = 0; begin < job.logits.num_rows; begin += 32) {
    const int row = begin + lane;
    const bool exists = row < job.logits.num_rows;
    const float largest =
        exists ? __ldcg(screen.largest + static_cast<int64_t>(set) * kMaxProductRows + row) : 0.0F;
    const bool comes = exists && !(largest + most * small.lengths[row] < small.floors[row]);
    unsigned rows = __ballot_sync(kAll, comes);
#pragma unroll 1
    for (; rows != 0; rows &= rows - 1) {
      const int which = begin + __ffs(static_cast<int>(rows)) - 1;
      const float4 sum = load_sum4(screen.sums, which, id, pieces);
      const float4 logits = {sum.x * scales.x, sum.y * scales.y, sum.z * scales.z,
                             sum.w * scales.w};
      may |= who_may(logits, errors, small.lengths[which], small.floors[which]);
    }
  }
  return may;
}

// Lists who of a span may come first in some row.
template <int kTiles>
__device__ inline void list_span(const Job& job, Small<kTiles>& small, int span) {
  const int set = set_of(span);
  const int id = set * kSetColumns + static_cast<int>(threadIdx.x) % 32 * 4;
  if (id >= job.screen.columns) return;
  const float4 errors = *reinterpret_cast<const float4*>(job.screen.errors + id);
  unsigned may = kTiles == 1 ? who_may_in_logits(job, small, id, errors)
                             : who_may_in_sums(job, small, set, errors);
#pragma unroll 1
  for (; may != 0; may &= may - 1) {
    const int candidate = id + __ffs(static_cast<int>(may)) - 1;
    if (candidate < job.logits.vocab_size && !is_suppressed(job.logits, candidate))
      small.ids[atomicAdd(&small.count, 1)] = candidate;
  }
}

// Where an id's bytes lie within a step of its group of 16.
__device__ inline int lane_of(int id) {
  return id % 8 * 4;
}
__device__ inline bool is_upper(int id) {
  return id % 16 >= 8;
}

// Up to 64 ids of the list. Some steps of theirs at once are in shared memory: the weights,
// [count][steps + 1] steps, and behind them the rows.
template <int kTiles>
struct Together {
  static constexpr int kRowsOfStep = kTiles * kTileStepBytes;
  const int32_t* ids;
  int count;
  uint32_t weights;
  int steps;  // most at once, even

  __device__ Together(const Job& job, const Small<kTiles>& small, int begin, uint32_t chunk)
      : ids(small.ids + begin),
        count(min(small.count - begin, kMostTogether)),
        weights(chunk),
        steps(min((job.chunk_bytes - count * kStepBytes - 128) /
                      (count * kStepBytes + kRowsOfStep) / 2 * 2,
                  job.plan.set_blocks * 2)) {}
  // Odd in units of 64 bytes: neighbours lie in different banks.
  __device__ uint32_t place(int i) const { return weights + i * (steps + 1) * kStepBytes; }
  __device__ uint32_t rows() const { return (place(count) + 127) / 128 * 128; }

  // Steps [begin, end): a warp for each id, and one thread for the rows.
  __device__ void gather(const Job& job, int begin, int end, uint32_t rows_full) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (threadIdx.x == 0) {
      const int bytes = (end - begin) * kRowsOfStep;
      ptx::barrier_arrive_expect(rows_full, static_cast<uint32_t>(bytes));
      ptx::bulk_copy(rows(), job.operand + static_cast<int64_t>(begin) * kRowsOfStep,
                     static_cast<uint32_t>(bytes), rows_full);
    }
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) / 32; i < count; i += kWarps) {
      const int id = ids[i];
      const int64_t first = static_cast<int64_t>(id / kSetColumns) * job.plan.set_blocks;
      const uint8_t* const group =
          job.weights + first * 8192 + id % kSetColumns / 16 * 1024 + (lane_of(id) + lane % 4) * 16;
#pragma unroll 2
      for (int step = begin + lane / 4; step < end; step += 8)
        copy_chunk(place(i) + (step - begin) * kStepBytes + lane % 4 * 16,
                   group + static_cast<int64_t>(step / 2) * 8192 + step % 2 * 512);
    }
  }
};

// One of the two ids whose weights a lane takes; where there is none, it takes those of the first,
// for nothing.
struct LaneId {
  uint32_t place;
  int split;
  bool upper;

  template <int kTiles>
  __device__ LaneId(const Together<kTiles>& together, const Small<kTiles>& small, int index_in) {
    const int index = index_in < together.count ? index_in : 0;
    split = small.splits[index];
    place = together.place(index) + threadIdx.x % 4 * 16;
    upper = is_upper(together.ids[index]);
  }
  __device__ uint2 load(int step) const {
    const uint4 both = ptx::load_shared(place + step * kStepBytes);
    return upper ? make_uint2(both.y, both.w) : make_uint2(both.x, both.z);
  }
};

template <int kTiles>
class Multiplier {
 public:
  __device__ Multiplier(const Together<kTiles>& together, const Small<kTiles>& small)
      : low_(together, small, first_index()),
        high_(together, small, first_index() + 8),
        count_(together.count),
        rows_(together.rows()) {}

  // Steps [begin, end), which are gathered.
  __device__ void add(Small<kTiles>& small, int begin, int end) {
#pragma unroll 1
    for (int at = begin; at < end;) {
      int next = end;
#pragma unroll 1
      for (int i = 0; i < count_; ++i)
        if (small.splits[i] > at) next = min(next, small.splits[i]);
      add_run(at - begin, next - begin);
      at = next;
      begin_second_piece(small, low_, 0, at);
      begin_second_piece(small, high_, 1, at);
    }
  }
  // Leaves the logits of its ids, before scale and cap.
  __device__ void leave(Small<kTiles>& small) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool adds = (half == 0 ? low_ : high_).split > 0;
      for_row_pairs(small, half, [&](float2& place, float one, float other) {
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
  template <typename Visit>
  __device__ void for_row_pairs(Small<kTiles>& small, int half, const Visit& visit) const {
    const int row = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile)
      visit(*reinterpret_cast<float2*>(&small.sums[first_index() + half * 8][tile * 8 + row]),
            sums_[tile * 4 + half * 2], sums_[tile * 4 + half * 2 + 1]);
  }
  // The sums of the first one wait in shared memory.
  __device__ void begin_second_piece(Small<kTiles>& small, const LaneId& id, int half, int at) {
    const bool begins = id.split == at;
    if (begins)
      for_row_pairs(small, half,
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

// Where shares of the weights end within a set, product() adds two sums up.
__device__ inline int split_of(const Partials& plan, int id) {
  const int first = id / kSetColumns * plan.set_blocks;
  const int next = plan.share_begin(plan.share_of(first) + 1) - first;
  return next < plan.set_blocks ? next * 2 : 0;
}

// The logits that a multiplier left, by all threads.
template <int kTiles>
__device__ inline void meet(const Job& job, Small<kTiles>& small,
                            const Together<kTiles>& together) {
  constexpr int kRows = kTiles * 8;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < together.count * kRows; i += kThreads) {
    const int row = i % kRows;
    if (row >= job.logits.num_rows) continue;
    const float x = small.sums[i / kRows][row] * job.logits.scale;
    if (x < small.floors[row]) continue;
    const float logit = job.logits.cap > 0.0F ? capped_rarely(job.logits.cap, x) : x;
    Key key = make_key(logit, together.ids[i / kRows]);
    if (logit == -__int_as_float(0x7f800000)) key = kNoKey;
    if (!is_finite(job.logits, x)) key = kNotFiniteKey;
    atomicMax(&small.keys[row], key);
  }
}

// Everybody on the list meets; all threads. `parity`: of the rows' next copy.
template <int kTiles>
__device__ void confirm_listed(const Job& job, Small<kTiles>& small, uint32_t chunk,
                               uint32_t& parity) {
  const uint32_t rows_full = ptx::shared_address(&small.rows_full);
  const int num_steps = job.plan.set_blocks * 2;
#pragma unroll 1
  for (int begin = 0; begin < small.count; begin += kMostTogether) {
    const Together<kTiles> together(job, small, begin, chunk);
    if (static_cast<int>(threadIdx.x) < together.count)
      small.splits[threadIdx.x] = split_of(job.plan, together.ids[threadIdx.x]);
    __syncthreads();
    Multiplier<kTiles> multiplier(together, small);
#pragma unroll 1
    for (int step = 0; step < num_steps; step += together.steps) {
      const int end = min(step + together.steps, num_steps);
      together.gather(job, step, end, rows_full);
      wait_for_chunks();
      ptx::barrier_wait(rows_full, parity);
      parity ^= 1;
      __syncthreads();
      if (threadIdx.x < kMultiplyThreads) multiplier.add(small, step, end);
      __syncthreads();
    }
    if (threadIdx.x < kMultiplyThreads) multiplier.leave(small);
    // The next rows may be copied to where these weights lie.
    ptx::fence_async_shared();
    __syncthreads();
    meet(job, small, together);
  }
}

template <int kTiles>
__global__ void __launch_bounds__(kThreads, 1) confirm_kernel(const __grid_constant__ Job job) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  auto& small = *reinterpret_cast<Small<kTiles>*>(shared);
  const uint32_t chunk = ptx::shared_address(shared + kSmallBytes<kTiles>);
  const int spans = num_spans(job.screen);
  for (int span = 0; span < spans; ++span) {
    const int id = set_of(span) * kSetColumns + static_cast<int>(threadIdx.x) % 32 * 4;
    if (id < job.screen.columns)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(job.screen.errors + id));
  }
  if (threadIdx.x == 0) {
    ptx::barrier_init(ptx::shared_address(&small.rows_full), 1);
    ptx::fence_barrier_init();
    small.count = 0;
  }
  const int row = static_cast<int>(threadIdx.x);
  if (row < kTiles * 8) small.keys[row] = kNoKey;
  wait_for_previous();
  if (threadIdx.x == 0) ptx::fence_async_global();
  if (row < job.logits.num_rows) {
    const float length = __ldcg(job.screen.lengths + row);
    const float floor = floor_of(job.logits.cap, from_ordered(__ldcg(job.screen.lower + row)));
    small.floors[row] = length < kMostLength ? floor : -__int_as_float(0x7f800000);
    small.lengths[row] = length;
  }
  __syncthreads();
  uint32_t parity = 0;
  for (int span = 0; span < spans; ++span) {
    list_span(job, small, span);
    if (span % kListedSpans + 1 < kListedSpans && span + 1 < spans) continue;
    __syncthreads();
    confirm_listed(job, small, chunk, parity);
    __syncthreads();
    if (threadIdx.x == 0) small.count = 0;
    __syncthreads();
  }
  if (row >= job.logits.num_rows) return;
  if (tell_candidate(job.scratch, row, gridDim.x, small.keys[row], job.tokens, job.draft))
    job.screen.lower[row] = 0;
}

template <int kTiles>
void launch_confirm(const Stream& stream, const PackedLinear& head, Job job) {
  const auto kernel = confirm_kernel<kTiles>;
  static const bool configured = [&] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           max_shared_bytes()));
    return true;
  }();
  (void)configured;
  // Room for all of 16 ids, which is more than a thread block mostly has, or what there is; at
  // least for two steps of 64.
  const int steps = head.set_blocks * 2;
  const int rows_of_step = kTiles * kTileStepBytes;
  const int least = kMostTogether * 3 * kStepBytes + 2 * rows_of_step + 128;
  const int wanted = 16 * (steps + 1) * kStepBytes + steps * rows_of_step + 128;
  job.chunk_bytes = std::min(std::max(least, wanted), max_shared_bytes() - kSmallBytes<kTiles>);
  TANDEM_GPU_CHECK(job.chunk_bytes >= least);
  launch(stream, kernel, dim3(static_cast<unsigned>(head.num_shares)), dim3(kThreads),
         static_cast<size_t>(kSmallBytes<kTiles> + job.chunk_bytes), job);
}

}  // namespace

void confirm_screened(const Stream& stream, const PackedLinear& head, const ScreenPlaces& places,
                      const void* operand, int num_tiles, const HeadArgmax& argmax) {
  Job job{};
  job.weights = head.data.as<uint8_t>();
  job.plan = head.partials(nullptr, 8);
  job.operand = static_cast<const uint8_t*>(operand);
  job.logits = argmax.logits;
  job.screen = places;
  job.scratch = argmax_scratch(argmax.scratch, argmax.logits.num_rows);
  job.tokens = argmax.tokens;
  job.draft = argmax.draft;
  switch (num_tiles) {
    case 1:
      return launch_confirm<1>(stream, head, job);
    case 2:
      return launch_confirm<2>(stream, head, job);
    case 4:
      return launch_confirm<4>(stream, head, job);
    default:
      check_condition(false, "num_tiles 1, 2 or 4");
  }
}

}  // namespace tandem::ops::cuda
