// The second kernel of attention: a row's segments, weighted, are added up.
#include "ops/cuda/attention_combine.cuh"

namespace tandem::ops::cuda::combine {
namespace {

constexpr int kBatch = 4;  // segments whose sums a warp fetches together

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

// The largest maximum of all segments, in every lane.
__device__ float largest_of(bool live, const RowSegments& segments, const float2* totals,
                            int lane) {
  float largest = -INFINITY;
  for (int i = lane; i < segments.count; i += 32)
    largest = fmaxf(largest, load2_if(live, &totals[segments.slot(i)], {-INFINITY, 0.0F}).x);
  return warp_max(largest);
}

// Chains warp, warp + kWarps, ...
template <typename P, int kHeadDim, int kWarps>
__device__ void add_segments(bool live, const RowSegments& segments, const float2* totals,
                             const uint16_t* sums, bool is_fp8, int warp, int lane,
                             Chain (&chains)[P::kOwnChains]) {
  FourSums values[kBatch];
  float2 found[kBatch];  // maximum, total
  const auto fetch = [&](int begin) {
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = begin + b * kWarps;
      if (i >= segments.count) continue;
      const int slot = segments.slot(i);
      found[b] = load2_if(live, &totals[slot], {});
      values[b] = FourSums::load_if(live, sums + static_cast<int64_t>(slot) * kHeadDim);
    }
  };
  fetch(warp);
  const float largest = largest_of(live, segments, totals, lane);
  for (int begin = warp; begin < segments.count; begin += kBatch * kWarps) {
    if (begin != warp) fetch(begin);
#pragma unroll
    for (int b = 0; b < kBatch; ++b)
      if (begin + b * kWarps < segments.count)
        chains[b % P::kOwnChains].add(values[b].values(is_fp8), weight_of(found[b].x, largest),
                                      found[b].y);
  }
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
      job.sums + base * kHeadDim + first_column + slab * P::kSlab + own * 4, attention.kv.is_fp8,
      warp, lane, chains);
#pragma unroll
  for (int i = 0; i < P::kOwnChains; ++i) {
    if (lane == own) chain_sums[slab][warp + i * kWarps][lane] = chains[i].sum;
    if (lane == 0 && slab == 0) chain_totals[warp + i * kWarps] = chains[i].total;
  }
  __syncthreads();
  join_chains<P::kSlab, kWarps * 32>(attention, row,
                                     head * kHeadDim + first_column + slab * P::kSlab,
                                     chain_sums[slab], chain_totals, warp * 32 + lane, live);
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

// The same of many segments: a thread block has a slab, and each of its warps one chain.
namespace far {

constexpr int kNearSegments = 64;  // so many are added up as soon by combine_head()
constexpr int kAhead = 16;         // segments whose sums are on their way at once

template <int kHeadDim>
__device__ void combine_slab(const Job& job, int row, int head, int slab, int last_key) {
  __shared__ float4 chain_sums[kChains][kSlabColumns / 4];
  __shared__ float chain_totals[kChains];
  __shared__ float maxima[kChains];
  const Attention& attention = job.attention;
  const auto segments = segments_of<kHeadDim>(attention, last_key);
  const int64_t base =
      (static_cast<int64_t>(row) * attention.num_heads + head) * attention.max_segments;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int count = (segments.count - warp + kChains - 1) / kChains;  // of the chain
  const auto slot_of = [&](int i) { return segments.slot(warp + i * kChains); };
  const float2* const totals = job.totals + base;
  const uint16_t* const sums = job.sums + base * kHeadDim + slab * kSlabColumns + lane * 4;
  FourSums values[kAhead];
  const auto fetch = [&](int begin) {
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      values[k] = FourSums::load_if(begin + k < count,
                                    sums + static_cast<int64_t>(slot_of(begin + k)) * kHeadDim);
  };
  fetch(0);
  float largest = -INFINITY;
  for (int i = lane; i < count; i += 32) largest = fmaxf(largest, totals[slot_of(i)].x);
  largest = warp_max(largest);
  if (lane == 0) maxima[warp] = largest;
  __syncthreads();
#pragma unroll
  for (const float maximum : maxima) largest = fmaxf(largest, maximum);
  Chain chain;
  for (int begin = 0; begin < count; begin += 32) {
    const float2 own =
        load2_if(begin + lane < count, &totals[slot_of(begin + lane)], {-INFINITY, 0.0F});
    const float weight = weight_of(own.x, largest);
#pragma unroll 1
    for (int first = 0; first < 32 && begin + first < count; first += kAhead) {
      if (begin + first > 0) fetch(begin + first);
#pragma unroll
      for (int k = 0; k < kAhead; ++k) {
        const float its_weight = __shfl_sync(0xffffffffU, weight, first + k);
        const float its_total = __shfl_sync(0xffffffffU, own.y, first + k);
        if (begin + first + k < count)
          chain.add(values[k].values(attention.kv.is_fp8), its_weight, its_total);
      }
    }
  }
  chain_sums[warp][lane] = chain.sum;
  if (lane == 0) chain_totals[warp] = chain.total;
  __syncthreads();
  join_chains<kSlabColumns, kChains * 32>(attention, row, head * kHeadDim + slab * kSlabColumns,
                                          chain_sums, chain_totals, warp * 32 + lane, true);
}

// grid (slabs of all heads, row)
template <int kHeadDim>
__global__ void __launch_bounds__(kChains * 32, 3) combine_kernel(const Job job) {
  constexpr int kSlabs = kHeadDim / kSlabColumns;
  allow_next();
  if (!job.rows.early_plan) wait_for_previous();
  const int row = static_cast<int>(blockIdx.y);
  const int last_key = job.rows.sequences[row] < 0 ? -1 : job.rows.last_keys[row];
  if (job.rows.early_plan) wait_for_previous();
  reset_items(job);
  const int slab = static_cast<int>(blockIdx.x);
  if (last_key >= 0)
    return combine_slab<kHeadDim>(job, row, slab / kSlabs, slab % kSlabs, last_key);
  const int column = static_cast<int>(threadIdx.x) * 2;
  if (column < kSlabColumns)
    store_operand(job.attention.out, row, slab * kSlabColumns + column, 0.0F, 0.0F);
}

}  // namespace far

// The same of many rows, where what is on its way counts, not what one takes: a warp has all chains
// of a slab.
namespace many {

constexpr int kWarps = 8;
constexpr int kFirst = 2 * kChains;  // segments that are fetched all at once; few rows have more
constexpr int kMostSegments = kFirst + 3 * kChains;

// What a warp knows of its row's segments: lane i of segments i and i + 32.
struct Weights {
  float weights[2];
  float totals[2];

  __device__ Weights(const RowSegments& segments, const float2* all, int lane) {
    float2 own[2];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int i = lane + k * 32;
      own[k] = load2_if(i < segments.count, &all[segments.slot(i)], {-INFINITY, 0.0F});
    }
    const float largest = warp_max(fmaxf(own[0].x, own[1].x));
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      weights[k] = weight_of(own[k].x, largest);
      totals[k] = own[k].y;
    }
  }
  __device__ void add(Chain& chain, const float4& value, int i) const {
    chain.add(value, __shfl_sync(0xffffffffU, weights[i / 32], i % 32),
              __shfl_sync(0xffffffffU, totals[i / 32], i % 32));
  }
};

// What a lane reads of a row's segments: kEach columns from `place` of a head on, in the part that
// its warp has.
template <int kHeadDim, int kEach, typename Sums>
struct OwnSums {
  RowSegments segments;
  int64_t base;
  int lane;
  int place;
  const uint16_t* sums;

  __device__ OwnSums(const Job& job, int row, int head, int part, int last_key)
      : segments(segments_of<kHeadDim>(job.attention, last_key)),
        base((static_cast<int64_t>(row) * job.attention.num_heads + head) *
             job.attention.max_segments),
        lane(static_cast<int>(threadIdx.x) % 32),
        place(part * (32 * kEach) + lane * kEach),
        sums(job.sums + base * kHeadDim + place) {}
  __device__ Sums fetch(int i) const {
    return Sums::load_if(i < segments.count,
                         sums + static_cast<int64_t>(segments.slot(i)) * kHeadDim);
  }
};

template <int kHeadDim>
__device__ void combine_slab(const Job& job, int row, int head, int slab, int last_key) {
  const Attention& attention = job.attention;
  const OwnSums<kHeadDim, 4, FourSums> own(job, row, head, slab, last_key);
  const RowSegments& segments = own.segments;
  FourSums first[kFirst];
#pragma unroll
  for (int i = 0; i < kFirst; ++i) first[i] = own.fetch(i);
  const Weights weights(segments, job.totals + own.base, own.lane);
  const bool is_fp8 = attention.kv.is_fp8;
  Chain all;
#pragma unroll
  for (int c = 0; c < kChains; ++c) {
    Chain chain;
    weights.add(chain, first[c].values(is_fp8), c);
    if (c + kChains < segments.count)
      weights.add(chain, first[c + kChains].values(is_fp8), c + kChains);
    if (c + kFirst < segments.count) {
      FourSums rest[3];
#pragma unroll
      for (int k = 0; k < 3; ++k) rest[k] = own.fetch(c + kFirst + k * kChains);
#pragma unroll
      for (int k = 0; k < 3; ++k)
        if (c + kFirst + k * kChains < segments.count)
          weights.add(chain, rest[k].values(is_fp8), c + kFirst + k * kChains);
    }
    all.join(chain);
  }
  const int column = head * kHeadDim + column_of(own.place);
  store_two(attention, row, column, all.sum.x, all.sum.y, all.total);
  store_two(attention, row, column + 8, all.sum.z, all.sum.w, all.total);
}

// A warp has one of kParts parts of a head: [rows][parts of all heads]. work(warp, parts of a row,
// row, last key or -1)
template <int kParts, typename Work>
__device__ void with_own_part(const Job& job, const Work& work) {
  allow_next();
  if (!job.rows.early_plan) wait_for_previous();
  const int parts = job.attention.num_heads * kParts;
  const int warp = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32);
  const int row = warp / parts;
  const bool exists = row < job.rows.num_rows;
  const int last_key = exists && job.rows.sequences[row] >= 0 ? job.rows.last_keys[row] : -1;
  if (job.rows.early_plan) wait_for_previous();
  reset_items(job);
  if (!exists) return;
  work(warp, parts, row, last_key);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kWarps * 32, 4) combine_kernel(const Job job) {
  constexpr int kSlabs = kHeadDim / kSlabColumns;
  with_own_part<kSlabs>(job, [&](int warp, int slabs, int row, int last_key) {
    const int head = warp % slabs / kSlabs;
    if (last_key >= 0) return combine_slab<kHeadDim>(job, row, head, warp % kSlabs, last_key);
    const int column = warp % slabs * kSlabColumns + static_cast<int>(threadIdx.x) % 32 * 4;
    store_operand(job.attention.out, row, column, 0.0F, 0.0F);
    store_operand(job.attention.out, row, column + 2, 0.0F, 0.0F);
  });
}

}  // namespace many

// The same where a row has few segments: a warp has 256 columns, eight a lane, so that what is
// worked out for each segment serves twice as many.
namespace near {

constexpr int kRun = 256;            // columns of a warp
constexpr int kFirst = kChains + 1;  // segments that are fetched all at once
constexpr int kMostSegments = kFirst + 1;

using many::Weights;

// Eight neighbours of a segment's sums.
struct SegmentSums {
  FourSums fours[2];

  __device__ static SegmentSums load_if(bool condition, const uint16_t* source) {
    const float4 loaded = load4_if(condition, reinterpret_cast<const float*>(source));
    return {{{{__float_as_uint(loaded.x), __float_as_uint(loaded.y)}},
             {{__float_as_uint(loaded.z), __float_as_uint(loaded.w)}}}};
  }
};

// One of a row's sums in eight columns: the fours' totals are the same.
struct EightChain {
  Chain fours[2];

  __device__ void add(const Weights& weights, const SegmentSums& sums, bool is_fp8, int i) {
#pragma unroll
    for (int k = 0; k < 2; ++k) weights.add(fours[k], sums.fours[k].values(is_fp8), i);
  }
};

// A lane's eight columns at `place` of a head: columns 4u .. 4u + 3 and 4u + 8 .. 4u + 11 of 16 are
// two neighbouring words of E4M3.
__device__ void store_eight(const Attention& attention, int row, int head_column, int place,
                            const EightChain& all) {
  const Operand& out = attention.out;
  const float scale = scale_of(attention);
  float4 x[2];
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const Chain& chain = all.fours[k];
    const auto value = [&](float sum) { return round_bf16(__fdiv_rn(sum * scale, chain.total)); };
    x[k] = {value(chain.sum.x), value(chain.sum.y), value(chain.sum.z), value(chain.sum.w)};
  }
  const int column = head_column + column_of(place);
  uint8_t* const target = static_cast<uint8_t*>(out.data) + operand_offset(out, row, column);
  if (out.input_scale > 0.0F) {
    const auto word = [&](const float4& v) { return e4m3x4(v.x, v.y, v.z, v.w, out.divisor()); };
    *reinterpret_cast<uint2*>(target) = {word(x[0]), word(x[1])};
  } else {
    *reinterpret_cast<uint2*>(target) = {bf16x2(x[0].x, x[0].y), bf16x2(x[1].x, x[1].y)};
    *reinterpret_cast<uint2*>(static_cast<uint8_t*>(out.data) +
                              operand_offset(out, row, column + 8)) = {bf16x2(x[0].z, x[0].w),
                                                                       bf16x2(x[1].z, x[1].w)};
  }
}

template <int kHeadDim>
__device__ void combine_run(const Job& job, int row, int head, int run, int last_key) {
  const Attention& attention = job.attention;
  const many::OwnSums<kHeadDim, 8, SegmentSums> own(job, row, head, run, last_key);
  SegmentSums first[kFirst];
#pragma unroll
  for (int i = 0; i < kFirst; ++i) first[i] = own.fetch(i);
  const Weights weights(own.segments, job.totals + own.base, own.lane);
  const bool is_fp8 = attention.kv.is_fp8;
  EightChain all;
#pragma unroll
  for (int c = 0; c < kChains; ++c) {
    EightChain chain;
    chain.add(weights, first[c], is_fp8, c);
    if (c + kChains < own.segments.count)
      chain.add(weights, c + kChains < kFirst ? first[kFirst - 1] : own.fetch(c + kChains), is_fp8,
                c + kChains);
#pragma unroll
    for (int k = 0; k < 2; ++k) all.fours[k].join(chain.fours[k]);
  }
  store_eight(attention, row, head * kHeadDim, own.place, all);
}

template <int kHeadDim>
__global__ void __launch_bounds__(many::kWarps * 32, 3) combine_kernel(const Job job) {
  constexpr int kRuns = kHeadDim / kRun;
  many::with_own_part<kRuns>(job, [&](int warp, int runs, int row, int last_key) {
    const int head = warp % runs / kRuns;
    if (last_key >= 0) return combine_run<kHeadDim>(job, row, head, warp % kRuns, last_key);
    EightChain zeros;
    zeros.fours[0].total = zeros.fours[1].total = 1.0F;
    store_eight(job.attention, row, head * kHeadDim,
                warp % kRuns * kRun + static_cast<int>(threadIdx.x) % 32 * 8, zeros);
  });
}

}  // namespace near

template <int kHeadDim, int kWarps, bool kBySlab = false>
void launch_combine(const Stream& stream, const Job& job) {
  using P = Plan<kHeadDim, kWarps, kBySlab>;
  launch(stream, combine_kernel<kHeadDim, kWarps, kBySlab>,
         dim3(static_cast<unsigned>(job.attention.num_heads * P::kParts),
              static_cast<unsigned>(job.rows.num_rows)),
         dim3(P::kThreads), 0, job);
}
template <int kHeadDim>
void launch_far(const Stream& stream, const Job& job) {
  launch(stream, far::combine_kernel<kHeadDim>,
         dim3(static_cast<unsigned>(job.attention.num_heads * (kHeadDim / kSlabColumns)),
              static_cast<unsigned>(job.rows.num_rows)),
         dim3(kChains * 32), 0, job);
}
template <int kHeadDim>
void launch_many(const Stream& stream, const Job& job) {
  const bool is_near = job.attention.max_segments <= near::kMostSegments;
  const int parts = kHeadDim / (is_near ? near::kRun : kSlabColumns);
  const int warps = job.rows.num_rows * job.attention.num_heads * parts;
  launch(stream, is_near ? near::combine_kernel<kHeadDim> : many::combine_kernel<kHeadDim>,
         dim3(static_cast<unsigned>((warps + many::kWarps - 1) / many::kWarps)),
         dim3(many::kWarps * 32), 0, job);
}

}  // namespace
}  // namespace tandem::ops::cuda::combine

namespace tandem::ops::cuda {

void combine_attention(const Stream& stream, const AttentionJob& job) {
  using namespace combine;
  // Where a multiprocessor has three blocks or more. A warp alone would take long for many
  // segments.
  const bool many = job.attention.num_heads * job.rows.num_rows > 2 * num_multiprocessors() &&
                    job.attention.max_segments <= many::kMostSegments;
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
      if (job.attention.max_segments <= far::kNearSegments)
        return launch_combine<512, 8, true>(stream, job);
      return launch_far<512>(stream, job);
  }
}

}  // namespace tandem::ops::cuda
