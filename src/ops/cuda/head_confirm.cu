// The last kernel of a screened head (head_screen.h): whoever may still come first gets its logit
// from the head itself, with the bits of product().
#include <algorithm>

#include "ops/cuda/head_confirm.cuh"
#include "ops/cuda/head_keys.cuh"
#include "ops/cuda/head_screen.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

using confirm::kStepBytes;
using confirm::kThreads;
using confirm::kTileStepBytes;
using confirm::kWarps;
using confirm::Together;

constexpr int kMultiplyThreads = confirm::kGroupThreads;
constexpr int kMostTogether = confirm::kGroupIds;
constexpr int kSpan = kWarps * kSetColumns;  // ids that the warps look at at once
constexpr int kListedSpans = 2;              // before those who are listed are confirmed
constexpr unsigned kAll = 0xffffffffU;

template <int kTiles>
struct Small {
  static constexpr int kRows = kTiles * 8;
  uint64_t rows_full;
  Key keys[kRows];
  float floors[kRows];   // of each row: smaller logits cannot come first
  float lengths[kRows];  // |x|
  int count;
  int32_t ids[kListedSpans * kSpan];
  confirm::Room<kTiles, 1> room;
};
template <int kTiles>
constexpr int kSmallBytes = (sizeof(Small<kTiles>) + 127) / 128 * 128;

struct Job {
  confirm::Factors factors;
  HeadLogits logits;
  ScreenPlaces screen;
  ArgmaxScratch scratch;
  int32_t* tokens;
  DraftToken draft;
};

// Sets are dealt out to thread blocks one by one, since likely tokens lie beside each other.
__device__ inline int set_of(int span) {
  return (span * kWarps + static_cast<int>(threadIdx.x) / 32) * static_cast<int>(gridDim.x) +
         static_cast<int>(blockIdx.x);
}
__device__ inline int num_spans(const ScreenPlaces& screen) {
  const int ids_of_grid = kSpan * static_cast<int>(gridDim.x);
  return (screen.columns + ids_of_grid - 1) / ids_of_grid;
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
    if (candidate < job.logits.vocab_size &&
        !is_among(job.logits.suppressed, job.logits.num_suppressed, candidate))
      small.ids[atomicAdd(&small.count, 1)] = candidate;
  }
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
    const float x = small.room.sums[i / kRows][row] * job.logits.scale;
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
  const int num_steps = job.factors.plan.set_blocks * 2;
#pragma unroll 1
  for (int begin = 0; begin < small.count; begin += kMostTogether) {
    const Together<kTiles> together(job.factors, small.ids + begin,
                                    min(small.count - begin, kMostTogether), chunk);
    if (static_cast<int>(threadIdx.x) < together.count)
      small.room.splits[threadIdx.x] =
          confirm::split_of(job.factors.plan, together.ids[threadIdx.x]);
    __syncthreads();
    confirm::Multiplier<kTiles, 1> multiplier(together, small.room);
#pragma unroll 1
    for (int step = 0; step < num_steps; step += together.steps) {
      const int end = min(step + together.steps, num_steps);
      together.gather(job.factors, step, end, rows_full);
      confirm::wait_for_chunks();
      ptx::barrier_wait(rows_full, parity);
      parity ^= 1;
      __syncthreads();
      if (threadIdx.x < kMultiplyThreads) multiplier.add(small.room, step, end);
      __syncthreads();
    }
    if (threadIdx.x < kMultiplyThreads) multiplier.leave(small.room);
    // The next rows may be copied to where these weights lie.
    ptx::fence_async_shared();
    __syncthreads();
    meet(job, small, together);
  }
}

// Everybody of this thread block's sets, `spans` times kSpan ids, who may come first in some row.
template <int kTiles>
__device__ inline void confirm_spans(const Job& job, Small<kTiles>& small, int spans,
                                     uint32_t chunk) {
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
}

// The same where the first kernel has listed them.
template <int kTiles>
__device__ inline void confirm_ids(const Job& job, Small<kTiles>& small, uint32_t chunk) {
  constexpr int kMost = kListedSpans * kSpan;
  const int count = static_cast<int>(__ldcg(job.screen.counts + blockIdx.x));
  const int32_t* const ids = job.screen.ids + static_cast<int64_t>(blockIdx.x) * job.screen.room;
  uint32_t parity = 0;
  for (int begin = 0; begin < count; begin += kMost) {
    const int own = min(count - begin, kMost);
    for (int i = static_cast<int>(threadIdx.x); i < own; i += kThreads)
      small.ids[i] = __ldcg(ids + begin + i);
    if (threadIdx.x == 0) small.count = own;
    __syncthreads();
    confirm_listed(job, small, chunk, parity);
    __syncthreads();
  }
  if (threadIdx.x == 0) job.screen.counts[blockIdx.x] = 0;
}

template <int kTiles>
__global__ void __launch_bounds__(kThreads, 1) confirm_kernel(const __grid_constant__ Job job) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  auto& small = *reinterpret_cast<Small<kTiles>*>(shared);
  const uint32_t chunk = ptx::shared_address(shared + kSmallBytes<kTiles>);
  const int spans = num_spans(job.screen);
  for (int span = 0; span < spans && !job.screen.lists; ++span) {
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
    small.floors[row] = length < kMostScreenedLength ? floor : -__int_as_float(0x7f800000);
    small.lengths[row] = length;
  }
  __syncthreads();
  if (kTiles > 1 && job.screen.lists)
    confirm_ids(job, small, chunk);
  else
    confirm_spans(job, small, spans, chunk);
  if (row >= job.logits.num_rows) return;
  if (tell_candidate(job.scratch, row, gridDim.x, small.keys[row], job.tokens, job.draft)) {
    job.screen.lower[row] = 0;
    job.screen.told_lengths[row] = 0;
  }
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
  job.factors.chunk_bytes =
      std::min(std::max(least, wanted), max_shared_bytes() - kSmallBytes<kTiles>);
  TANDEM_GPU_CHECK(job.factors.chunk_bytes >= least);
  launch(stream, kernel, dim3(static_cast<unsigned>(head.num_shares)), dim3(kThreads),
         static_cast<size_t>(kSmallBytes<kTiles> + job.factors.chunk_bytes), job);
}

}  // namespace

void confirm_screened(const Stream& stream, const PackedLinear& head, const ScreenPlaces& places,
                      const void* operand, int num_tiles, const HeadArgmax& argmax) {
  Job job{};
  job.factors = confirm::factors_of(head, operand);
  job.logits = argmax.logits;
  job.screen = places;
  job.scratch = argmax_scratch(argmax.scratch, argmax.logits.num_rows);
  job.tokens = argmax.tokens;
  job.draft = argmax.draft;
  few::with_tiles<1, 2, 4, 8>(num_tiles,
                              [&](auto tiles) { launch_confirm<tiles>(stream, head, job); });
}

}  // namespace tandem::ops::cuda
