// The second kernel of a screened head (head_screen.h): whoever may still come first gets its logit
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
constexpr int kMultiplyThreads = 128;
constexpr int kMostTogether = 64;    // ids that the warpgroup multiplies at once
constexpr int kSpan = kThreads * 4;  // ids that the threads look at at once
constexpr int kListedSpans = 2;      // before those who are listed are confirmed
constexpr int kStepBytes = 64;       // of an id and 16 inputs, what belongs to another id too
constexpr int kLeastGathered = kMostTogether * 3 * kStepBytes;  // two steps of so many
constexpr int kRowsOfStep = 256;  // bytes of the operand's 8 rows and 16 inputs
constexpr int kTogether = 8;      // steps that are loaded, then multiplied
// Of a row. Sums with a longer one could overflow (kMostIntegerError).
constexpr float kMostLength = 1e20F;

struct Small {
  uint64_t rows_full;
  Key keys[8];
  float floors[8];   // of each row: smaller logits cannot come first
  float lengths[8];  // |x|
  int count;
  int32_t ids[kListedSpans * kSpan];
  int splits[kMostTogether];  // the step that begins an id's second piece, or 0
  float sums[kMostTogether][8];
};
constexpr int kSmallBytes = (sizeof(Small) + 127) / 128 * 128;

struct Job {
  const uint8_t* weights;
  Partials plan;
  const uint8_t* operand;
  HeadLogits logits;
  ScreenPlaces screen;
  ArgmaxScratch scratch;
  int32_t* tokens;
  DraftToken draft;
  int gathered_bytes;
};

__device__ inline void copy_chunk(uint32_t target, const void* source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
}
__device__ inline void wait_for_chunks() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// Ids are dealt out to thread blocks in runs of 32, since likely tokens lie beside each other.
// The first of this thread's four.
__device__ inline int first_id_of(int span) {
  constexpr int kRun = 32;
  const int run =
      (span * (kSpan / kRun) + static_cast<int>(threadIdx.x) / 8) * static_cast<int>(gridDim.x) +
      static_cast<int>(blockIdx.x);
  return run * kRun + static_cast<int>(threadIdx.x) % 8 * 4;
}
__device__ inline int num_spans(int vocab_size) {
  const int ids_of_grid = kSpan * static_cast<int>(gridDim.x);
  return (vocab_size + ids_of_grid - 1) / ids_of_grid;
}

__device__ inline bool is_suppressed(const HeadLogits& head, int id) {
  bool found = false;
#pragma unroll 1
  for (int i = 0; i < head.num_suppressed; ++i) found = found || head.suppressed[i] == id;
  return found;
}

// Lists who of a span may come first in some row. What is not comparable may.
__device__ inline void list_span(const Job& job, Small& small, int span) {
  const int id = first_id_of(span);
  const ScreenPlaces& screen = job.screen;
  const bool inside = id < screen.columns;
  const float4 error = load4_if(inside, screen.errors + id);
  float4 logits[8];
#pragma unroll
  for (int row = 0; row < 8; ++row)
    logits[row] = load4_if(inside && row < job.logits.num_rows,
                           screen.logits + static_cast<int64_t>(row) * screen.columns + id);
  unsigned may = 0;
#pragma unroll
  for (int row = 0; row < 8; ++row) {
    if (row >= job.logits.num_rows) break;
    const float length = small.lengths[row];
    const float floor = small.floors[row];
    const auto test = [&](float x, float e, unsigned bit) {
      may |= x + e * length < floor ? 0 : bit;
    };
    test(logits[row].x, error.x, 1);
    test(logits[row].y, error.y, 2);
    test(logits[row].z, error.z, 4);
    test(logits[row].w, error.w, 8);
  }
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

// Up to 64 ids of the list, with the places of their weights in shared memory: [count][steps + 1].
struct Together {
  const int32_t* ids;
  int count;
  uint32_t gathered;
  int steps;  // most at once, even

  __device__ Together(const Job& job, const Small& small, int begin, uint32_t gathered_in)
      : ids(small.ids + begin),
        count(min(small.count - begin, kMostTogether)),
        gathered(gathered_in),
        steps(min((job.gathered_bytes / count / kStepBytes - 1) / 2 * 2, job.plan.set_blocks * 2)) {
  }
  // Odd in units of 64 bytes: neighbours lie in different banks.
  __device__ uint32_t place(int i) const { return gathered + i * (steps + 1) * kStepBytes; }

  // Steps [begin, end), a warp for each id.
  __device__ void gather(const Job& job, int begin, int end) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) / 32; i < count; i += kThreads / 32) {
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
  float saved[2] = {0.0F, 0.0F};  // of the first piece

  __device__ LaneId(const Together& together, const Small& small, int index_in) {
    const int index = index_in < together.count ? index_in : 0;
    split = small.splits[index];
    place = together.place(index) + threadIdx.x % 4 * 16;
    upper = is_upper(together.ids[index]);
  }
  __device__ uint2 load(int step) const {
    const uint4 both = ptx::load_shared(place + step * kStepBytes);
    return upper ? make_uint2(both.y, both.w) : make_uint2(both.x, both.z);
  }
  __device__ void begin_second_piece(float& one, float& other) {
    saved[0] = one;
    saved[1] = other;
    one = other = 0.0F;
  }
};

class Multiplier {
 public:
  __device__ Multiplier(const Together& together, const Small& small, uint32_t rows)
      : low_(together, small, first_index()),
        high_(together, small, first_index() + 8),
        count_(together.count),
        rows_(rows) {}

  // Steps [begin, end), which are gathered.
  __device__ void add(const Small& small, int begin, int end) {
#pragma unroll 1
    for (int at = begin; at < end;) {
      int next = end;
#pragma unroll 1
      for (int i = 0; i < count_; ++i)
        if (small.splits[i] > at) next = min(next, small.splits[i]);
      add_run(begin, at, next);
      at = next;
      if (low_.split == at) low_.begin_second_piece(sums_[0], sums_[1]);
      if (high_.split == at) high_.begin_second_piece(sums_[2], sums_[3]);
    }
  }
  // Leaves two logits of each id, before scale and cap.
  __device__ void leave(Small& small) const {
    const int index = first_index();
    const int row = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      small.sums[index][row + which] =
          low_.split > 0 ? low_.saved[which] + sums_[which] : sums_[which];
      small.sums[index + 8][row + which] =
          high_.split > 0 ? high_.saved[which] + sums_[2 + which] : sums_[2 + which];
    }
  }

 private:
  struct Steps {
    uint4 a[kTogether];
  };

  __device__ static int first_index() {
    return static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4;
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
  template <int kCount>
  __device__ void multiply(const Steps& steps, int step) {
    const uint64_t rows = ptx::rows_of(rows_ + step * kRowsOfStep, 2 * kRowsOfStep);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      ptx::wgmma_bf16_inputs(sums_, steps.a[i], rows + i * (kRowsOfStep >> 4));
    ptx::warpgroup_commit();
  }
  // The weights of the next steps are loaded while these are multiplied.
  __device__ void add_run(int begin, int at, int end) {
    Steps steps;
    ptx::pin(sums_);
    if (end - at >= kTogether) load<kTogether>(steps, at - begin);
#pragma unroll 1
    for (; end - at >= kTogether; at += kTogether) {
      multiply<kTogether>(steps, at);
      Steps next;
      if (end - at >= 2 * kTogether) load<kTogether>(next, at + kTogether - begin);
      ptx::warpgroup_wait<0>();
      ptx::pin(steps.a);
      steps = next;
    }
#pragma unroll 1
    for (; at < end; ++at) {
      load<1>(steps, at - begin);
      multiply<1>(steps, at);
      ptx::warpgroup_wait<0>();
      ptx::pin(steps.a);
    }
    ptx::pin(sums_);
  }

  LaneId low_, high_;
  int count_;
  uint32_t rows_;
  float sums_[4] = {};
};

// The logits that a multiplier left, by all threads.
__device__ inline void meet(const Job& job, Small& small, const Together& together) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < together.count * 8; i += kThreads) {
    const int row = i % 8;
    if (row >= job.logits.num_rows) continue;
    const float x = small.sums[i / 8][row] * job.logits.scale;
    const float logit = job.logits.cap > 0.0F ? capped_rarely(job.logits.cap, x) : x;
    Key key = make_key(logit, together.ids[i / 8]);
    if (logit == -__int_as_float(0x7f800000)) key = kNoKey;
    if (!is_finite(job.logits, x)) key = kNotFiniteKey;
    atomicMax(&small.keys[row], key);
  }
}

// Where shares of the weights end within a set, product() adds two sums up.
__device__ inline int split_of(const Partials& plan, int id) {
  const int first = id / kSetColumns * plan.set_blocks;
  const int next = plan.share_begin(plan.share_of(first) + 1) - first;
  return next < plan.set_blocks ? next * 2 : 0;
}

// Everybody on the list meets; all threads.
__device__ void confirm_listed(const Job& job, Small& small, uint32_t rows, uint32_t gathered) {
  const int num_steps = job.plan.set_blocks * 2;
#pragma unroll 1
  for (int begin = 0; begin < small.count; begin += kMostTogether) {
    const Together together(job, small, begin, gathered);
    if (static_cast<int>(threadIdx.x) < together.count)
      small.splits[threadIdx.x] = split_of(job.plan, together.ids[threadIdx.x]);
    __syncthreads();
    Multiplier multiplier(together, small, rows);
#pragma unroll 1
    for (int step = 0; step < num_steps; step += together.steps) {
      const int end = min(step + together.steps, num_steps);
      together.gather(job, step, end);
      wait_for_chunks();
      __syncthreads();
      if (threadIdx.x < kMultiplyThreads) multiplier.add(small, step, end);
      __syncthreads();
    }
    if (threadIdx.x < kMultiplyThreads) multiplier.leave(small);
    __syncthreads();
    meet(job, small, together);
  }
}

__global__ void __launch_bounds__(kThreads, 1) confirm_kernel(const __grid_constant__ Job job) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  Small& small = *reinterpret_cast<Small*>(shared);
  const uint32_t rows = ptx::shared_address(shared + kSmallBytes);
  const uint32_t row_bytes = job.plan.set_blocks * 2 * kRowsOfStep;
  const uint32_t rows_full = ptx::shared_address(&small.rows_full);
  const int spans = num_spans(job.logits.vocab_size);
  for (int span = 0; span < spans; ++span) {
    const int id = first_id_of(span);
    if (id < job.screen.columns)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(job.screen.errors + id));
  }
  if (threadIdx.x == 0) {
    ptx::barrier_init(rows_full, 1);
    ptx::fence_barrier_init();
    small.count = 0;
  }
  const int row = static_cast<int>(threadIdx.x);
  if (row < 8) small.keys[row] = kNoKey;
  wait_for_previous();
  if (threadIdx.x == 0) {
    ptx::fence_async_global();
    ptx::barrier_arrive_expect(rows_full, row_bytes);
    ptx::bulk_copy(rows, job.operand, row_bytes, rows_full);
  }
  if (row < job.logits.num_rows) {
    small.floors[row] = floor_of(job.logits.cap, from_ordered(__ldcg(job.screen.lower + row)));
    small.lengths[row] = __ldcg(job.screen.lengths + row);
  }
  __syncthreads();
  for (int span = 0; span < spans; ++span) {
    list_span(job, small, span);
    if (span % kListedSpans + 1 < kListedSpans && span + 1 < spans) continue;
    __syncthreads();
    ptx::barrier_wait(rows_full, 0);
    confirm_listed(job, small, rows, rows + row_bytes);
    __syncthreads();
    if (threadIdx.x == 0) small.count = 0;
    __syncthreads();
  }
  if (row >= job.logits.num_rows) return;
  if (tell_candidate(job.scratch, row, gridDim.x, small.keys[row], job.tokens, job.draft))
    job.screen.lower[row] = 0;
}

// Room for the weights of eight ids, which is more than a thread block mostly has, or what is left.
int gathered_bytes(const PackedLinear& head, int taken) {
  const int steps = head.set_blocks * 2;
  const int wanted = std::max(8 * (steps + 1) * kStepBytes, kLeastGathered);
  return std::min(wanted, max_shared_bytes() - taken);
}

}  // namespace

void confirm_screened(const Stream& stream, const PackedLinear& head, const ScreenPlaces& places,
                      const void* operand, const HeadArgmax& argmax) {
  const int taken = kSmallBytes + head.set_blocks * 2 * kRowsOfStep;
  Job job{};
  job.weights = head.data.as<uint8_t>();
  job.plan = head.partials(nullptr, 8);
  job.operand = static_cast<const uint8_t*>(operand);
  job.logits = argmax.logits;
  job.screen = places;
  job.scratch = argmax_scratch(argmax.scratch, argmax.logits.num_rows);
  job.tokens = argmax.tokens;
  job.draft = argmax.draft;
  job.gathered_bytes = gathered_bytes(head, taken);
  TANDEM_GPU_CHECK(job.gathered_bytes >= kLeastGathered);
  static const bool configured = [] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(
        confirm_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, max_shared_bytes()));
    return true;
  }();
  (void)configured;
  launch(stream, confirm_kernel, dim3(static_cast<unsigned>(head.num_shares)), dim3(kThreads),
         static_cast<size_t>(taken + job.gathered_bytes), job);
}

}  // namespace tandem::ops::cuda
