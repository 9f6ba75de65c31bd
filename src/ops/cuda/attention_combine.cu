// The second kernel of attention: a row's segments, weighted, are added up.
#include "ops/cuda/attention_job.cuh"
#include "ops/cuda/partials.cuh"

namespace tandem::ops::cuda {
namespace {

using Job = AttentionJob;

constexpr int kSlabColumns = 128;  // of a head, that a warp takes
constexpr int kBatch = 4;          // segments whose sums a warp fetches together
constexpr int kChains = 8;         // segment i of a row is added to sum i % kChains

// kWarps: that share a slab's segments, 1 to 8; how many changes no sum. kBySlab: a thread block
// takes one slab of a head, not all.
template <int kHeadDim, int kWarps, bool kBySlab>
struct Plan {
  static constexpr int kSlab = kHeadDim < kSlabColumns ? kHeadDim : kSlabColumns;
  static constexpr int kParts = kBySlab ? kHeadDim / kSlab : 1;  // of a head
  static constexpr int kColumns = kHeadDim / kParts;
  static constexpr int kSlabs = kColumns / kSlab;
  static constexpr int kOwnChains = kChains / kWarps;  // chains of a warp
  static constexpr int kThreads = kSlabs * kWarps * 32;
  static_assert(kBatch % kOwnChains == 0);
};

struct RowSegments {
  int first_slot;
  int count;
  int max_segments;
  __device__ int slot(int i) const {
    const int at = first_slot + i;
    return at >= max_segments ? at - max_segments : at;
  }
};

template <int kHeadDim>
__device__ RowSegments segments_of(const Attention& attention, int last_key) {
  constexpr int kKeys = attention_segment_keys(kHeadDim);
  const int first = first_key_of(attention.window, last_key) / kKeys;
  return {first % attention.max_segments, last_key / kKeys - first + 1, attention.max_segments};
}

// What is at `source`, or `value`; not a branch.
__device__ inline float2 load2_if(bool condition, const float2* source, float2 value) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.s32 p, %3, 0;\n"
      "@p ld.global.v2.f32 {%0, %1}, [%2];\n"
      "}"
      : "+f"(value.x), "+f"(value.y)
      : "l"(source), "r"(static_cast<int>(condition)));
  return value;
}

// The largest maximum of all segments, in every lane.
__device__ float largest_of(bool live, const RowSegments& segments, const float2* totals,
                            int lane) {
  float largest = -INFINITY;
  for (int i = lane; i < segments.count; i += 32)
    largest = fmaxf(largest, load2_if(live, &totals[segments.slot(i)], {-INFINITY, 0.0F}).x);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, mask));
  return largest;
}

// One of a row's sums in four columns, and its total.
struct Chain {
  float4 sum = {};
  float total = 0.0F;

  __device__ void add(const float4& value, const float2& segment, float largest) {
    const float scale = weight_of(segment.x, largest);
    total = fmaf(segment.y, scale, total);
    sum.x = fmaf(value.x, scale, sum.x);
    sum.y = fmaf(value.y, scale, sum.y);
    sum.z = fmaf(value.z, scale, sum.z);
    sum.w = fmaf(value.w, scale, sum.w);
  }
};

// Chains warp, warp + kWarps, ...
template <typename P, int kHeadDim, int kWarps>
__device__ void add_segments(bool live, const RowSegments& segments, const float2* totals,
                             const float* sums, int warp, int lane,
                             Chain (&chains)[P::kOwnChains]) {
  float4 values[kBatch];
  float2 scales[kBatch];
  const auto fetch = [&](int begin) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = begin + b * kWarps;
      if (i >= segments.count) continue;
      const int slot = segments.slot(i);
      scales[b] = load2_if(live, &totals[slot], {});
      values[b] = load4_if(live, sums + static_cast<int64_t>(slot) * kHeadDim);
    }
  };
  fetch(warp);
  const float largest = largest_of(live, segments, totals, lane);
  for (int begin = warp; begin < segments.count; begin += kBatch * kWarps) {
    if (begin != warp) fetch(begin);
#pragma unroll
    for (int b = 0; b < kBatch; ++b)
      if (begin + b * kWarps < segments.count)
        chains[b % P::kOwnChains].add(values[b], scales[b], largest);
  }
}

// The items that thread blocks draw begin from the first one again.
__device__ void reset_items(const Job& job) {
  if (job.attention.next_item != nullptr && blockIdx.x + blockIdx.y == 0 && threadIdx.x == 0)
    *job.attention.next_item = 0;
}

// Unless `live` it is a rehearsal (launch.cuh).
template <int kHeadDim, int kWarps, bool kBySlab>
__device__ void combine_head(const Job& job, int row, int head, int first_column, int last_key,
                             bool live) {
  using P = Plan<kHeadDim, kWarps, kBySlab>;
  __shared__ float4 chain_sums[P::kSlabs][kChains][P::kSlab / 4];
  __shared__ float chain_totals[kChains];
  const Attention& attention = job.attention;
  const int thread = static_cast<int>(threadIdx.x);
  const auto segments = segments_of<kHeadDim>(attention, last_key);
  const int64_t base =
      (static_cast<int64_t>(row) * attention.num_heads + head) * attention.max_segments;
  const int slab = thread / 32 % P::kSlabs;
  const int warp = thread / 32 / P::kSlabs;
  const int lane = thread % 32;
  Chain chains[P::kOwnChains];
  // Where a slab has fewer columns than a warp, the last lanes take the last ones once more.
  const int own = min(lane, P::kSlab / 4 - 1);
  add_segments<P, kHeadDim, kWarps>(
      live, segments, job.totals + base,
      attention.workspace + base * kHeadDim + first_column + slab * P::kSlab + own * 4, warp, lane,
      chains);
#pragma unroll
  for (int i = 0; i < P::kOwnChains; ++i) {
    if (lane == own) chain_sums[slab][warp + i * kWarps][lane] = chains[i].sum;
    if (lane == 0 && slab == 0) chain_totals[warp + i * kWarps] = chains[i].total;
  }
  __syncthreads();
  for (int c = thread * 2; c < P::kColumns; c += P::kThreads * 2) {
    float2 value = {};
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < kChains; ++i) {
      const float2 part =
          reinterpret_cast<const float2*>(chain_sums[c / P::kSlab][i])[c % P::kSlab / 2];
      value.x += part.x;
      value.y += part.y;
      total += chain_totals[i];
    }
    store_operand(attention.out, row, head * kHeadDim + first_column + c,
                  round_bf16(__fdiv_rn(value.x, total)), round_bf16(__fdiv_rn(value.y, total)),
                  live);
  }
}

// grid (part of a head, row)
template <int kHeadDim, int kWarps, bool kBySlab>
__global__ void __launch_bounds__(Plan<kHeadDim, kWarps, kBySlab>::kThreads)
    combine_kernel(const Job job) {
  using P = Plan<kHeadDim, kWarps, kBySlab>;
  allow_next();
  const bool early = job.rows.early_plan;
  if (!early) wait_for_previous();
  const int head = static_cast<int>(blockIdx.x) / P::kParts;
  const int first_column = static_cast<int>(blockIdx.x) % P::kParts * P::kColumns;
  const int row = static_cast<int>(blockIdx.y);
  const int last_key = job.rows.sequences[row] < 0 ? -1 : job.rows.last_keys[row];
  if (last_key < 0) {
    if (early) wait_for_previous();
    reset_items(job);
    for (int c = static_cast<int>(threadIdx.x) * 2; c < P::kColumns; c += P::kThreads * 2)
      store_operand(job.attention.out, row, head * kHeadDim + first_column + c, 0.0F, 0.0F);
    return;
  }
#pragma unroll 1
  for (int turn = first_turn(early); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live && early) wait_for_previous();
    if (live) reset_items(job);
    combine_head<kHeadDim, kWarps, kBySlab>(job, row, head, first_column, last_key, live);
    __syncthreads();
  }
}

// The same of many rows, where what is on its way counts, not what one takes: a warp has all chains
// of a slab.
namespace many {

constexpr int kWarps = 4;

// Segments from `begin` on in four columns, as chains that are not weighted yet.
template <int kHeadDim, int kCount>
__device__ void fetch(const RowSegments& segments, int begin, const float2* totals,
                      const float* sums, Chain (&chains)[kCount], float (&maxima)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const bool exists = begin + i < segments.count;
    const int slot = exists ? segments.slot(begin + i) : 0;
    const float2 own = load2_if(exists, &totals[slot], {-INFINITY, 0.0F});
    chains[i].sum = load4_if(exists, sums + static_cast<int64_t>(slot) * kHeadDim);
    chains[i].total = own.y;
    maxima[i] = own.x;
  }
}

// The first ones, one in each chain, are fetched all at once; few rows have more.
template <int kHeadDim>
__device__ void combine_slab(const Job& job, int row, int head, int slab, int last_key) {
  const Attention& attention = job.attention;
  const auto segments = segments_of<kHeadDim>(attention, last_key);
  const int64_t base =
      (static_cast<int64_t>(row) * attention.num_heads + head) * attention.max_segments;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int column = slab * kSlabColumns + lane * 4;
  const float2* const totals = job.totals + base;
  const float* const sums = attention.workspace + base * kHeadDim + column;
  Chain chains[kChains];
  float maxima[kChains];
  fetch<kHeadDim>(segments, 0, totals, sums, chains, maxima);
  float largest = segments.count > kChains ? largest_of(true, segments, totals, lane) : -INFINITY;
#pragma unroll
  for (const float maximum : maxima) largest = fmaxf(largest, maximum);
#pragma unroll
  for (int i = 0; i < kChains; ++i) {
    Chain weighted;
    weighted.add(chains[i].sum, {maxima[i], chains[i].total}, largest);
    chains[i] = weighted;
  }
  for (int begin = kChains; begin < segments.count; begin += kChains)
#pragma unroll
    for (int part = 0; part < kChains; part += kBatch) {
      if (begin + part >= segments.count) break;
      Chain next[kBatch];
      float next_maxima[kBatch];
      fetch<kHeadDim>(segments, begin + part, totals, sums, next, next_maxima);
#pragma unroll
      for (int i = 0; i < kBatch; ++i)
        if (begin + part + i < segments.count)
          chains[part + i].add(next[i].sum, {next_maxima[i], next[i].total}, largest);
    }
  Chain all;
#pragma unroll
  for (int i = 0; i < kChains; ++i) {
    all.sum.x += chains[i].sum.x;
    all.sum.y += chains[i].sum.y;
    all.sum.z += chains[i].sum.z;
    all.sum.w += chains[i].sum.w;
    all.total += chains[i].total;
  }
  const int at = head * kHeadDim + column;
  store_operand(attention.out, row, at, round_bf16(__fdiv_rn(all.sum.x, all.total)),
                round_bf16(__fdiv_rn(all.sum.y, all.total)));
  store_operand(attention.out, row, at + 2, round_bf16(__fdiv_rn(all.sum.z, all.total)),
                round_bf16(__fdiv_rn(all.sum.w, all.total)));
}

// grid (slabs of heads / kWarps, row)
template <int kHeadDim>
__global__ void __launch_bounds__(kWarps * 32, 6) combine_kernel(const Job job) {
  constexpr int kSlabs = kHeadDim / kSlabColumns;
  allow_next();
  if (!job.rows.early_plan) wait_for_previous();
  const int warp = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.y);
  const int head = warp / kSlabs;
  const int last_key = job.rows.sequences[row] < 0 ? -1 : job.rows.last_keys[row];
  if (job.rows.early_plan) wait_for_previous();
  reset_items(job);
  if (head >= job.attention.num_heads) return;
  if (last_key >= 0) return combine_slab<kHeadDim>(job, row, head, warp % kSlabs, last_key);
  const int column = warp * kSlabColumns + static_cast<int>(threadIdx.x) % 32 * 4;
  store_operand(job.attention.out, row, column, 0.0F, 0.0F);
  store_operand(job.attention.out, row, column + 2, 0.0F, 0.0F);
}

}  // namespace many

template <int kHeadDim, int kWarps, bool kBySlab = false>
void launch_combine(const Stream& stream, const Job& job) {
  using P = Plan<kHeadDim, kWarps, kBySlab>;
  launch(stream, combine_kernel<kHeadDim, kWarps, kBySlab>,
         dim3(static_cast<unsigned>(job.attention.num_heads * P::kParts),
              static_cast<unsigned>(job.rows.num_rows)),
         dim3(P::kThreads), 0, job);
}
template <int kHeadDim>
void launch_many(const Stream& stream, const Job& job) {
  const int warps = job.attention.num_heads * (kHeadDim / kSlabColumns);
  launch(stream, many::combine_kernel<kHeadDim>,
         dim3(static_cast<unsigned>((warps + many::kWarps - 1) / many::kWarps),
              static_cast<unsigned>(job.rows.num_rows)),
         dim3(many::kWarps * 32), 0, job);
}

}  // namespace

void combine_attention(const Stream& stream, const AttentionJob& job) {
  // Where a multiprocessor has three blocks or more. A warp alone would take long for many
  // segments.
  const bool many = job.attention.num_heads * job.rows.num_rows > 2 * num_multiprocessors() &&
                    job.attention.max_segments <= 40;
  switch (job.attention.head_dim) {
    case 32:
      return launch_combine<32, 8>(stream, job);
    case 64:
      return launch_combine<64, 8>(stream, job);
    case 128:
      return launch_combine<128, 8>(stream, job);
    case 256:
      if (many) return launch_many<256>(stream, job);
      return launch_combine<256, 4>(stream, job);
    default:
      if (many) return launch_many<512>(stream, job);
      // As many threads as find room beside the first kernel, unless there is much to read.
      if (job.attention.max_segments <= 20) return launch_combine<512, 2>(stream, job);
      return launch_combine<512, 8, true>(stream, job);
  }
}

}  // namespace tandem::ops::cuda
