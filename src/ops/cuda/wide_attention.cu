// Attention of many rows on the tensor cores: 64 keys at a time, the softmax carried along.
//
// The rows and query heads that share a KV head are the left side of the products, numbered
// row * group + head, 64 of them to a warpgroup: scores in registers become weights in registers,
// the left side of the second product, whose sums are at most 64 x 256. Up to head_dim 256 the two
// warpgroups have 64 of these pairs each and share keys and values; with 512 both have the same
// pairs, score half of the keys each, tell each other the weights, and each adds up half of the
// value columns. Two warps copy keys, two copy values, as asynchronous copies of 16 bytes: pages,
// rings and padding make them irregular (wide_attention_copies.cuh). What they copy at a time, a
// load, has at most 256 columns; two loads of keys and two of values have room.
//
// Where head_dim is 512 and all keys lie in pages of BF16, four rows of 16 heads would read them at
// what L2 can give: two thread blocks share them (wide_attention_shared.cuh).
//
// Keys and values of a cache of E4M3 are widened to BF16 on their way: the copying warps, eight of
// them, copy codes to a place of their own, a load ahead, and store from there what the tensor
// cores read. Their scales join the scores' and the sums'.
//
// Every matrix lies in shared memory as columns of 128 bytes: [column block][row][128 bytes],
// chunks of 16 bytes exchanged by row.
#include "ops/cuda/wide_attention.h"

#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/wide_attention_copies.cuh"
#include "ops/cuda/wide_attention_queries.cuh"
#include "ops/cuda/wide_attention_shared.cuh"
#include "ops/cuda/wide_attention_softmax.cuh"

namespace tandem::ops::cuda {
namespace wide {
namespace {

// A warp needs a load no more: both thread blocks copy the next one there.
template <Source kSource>
__device__ inline void give_back(uint32_t empty) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if constexpr (kSource == Source::kShared) {
    if (lane < kCluster) ptx::barrier_arrive_at(empty, lane);
  } else {
    if (lane == 0) ptx::barrier_arrive(empty);
  }
}

// Starts the products of one load of keys.
template <int kDim, Source kSource, int kScores>
__device__ inline void start_scores(Queries<kSource>& queries, int load, int first_key,
                                    const Loads& keys, float (&scores)[kScores]) {
  using P = Plan<kDim>;
  constexpr int kBlocks = P::kLoadColumns / 64;  // of a load
  constexpr int kHeld = Queries<kSource>::kHeld;
  keys.wait_full();
  ptx::fence_async_shared();
  queries.pin();
  ptx::warpgroup_fence();
  uint32_t left = queries.shared + load * kBlocks * (kPairs * 128);
  uint32_t right = keys.address() + first_key * 128;
  // Places worked out in front of the steps would take registers from them.
  asm volatile("" : "+r"(left));
  if constexpr (kSource == Source::kShared) asm volatile("" : "+r"(right));
#pragma unroll
  for (int block = 0; block < kBlocks; ++block)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint64_t b = ptx::matrix_of(right + block * P::kColumnBytes + i * 32, 1024);
      const int product = (load * kBlocks + block) * 4 + i;
      if constexpr (kHeld > 0)
        if (product < kHeld) {
          ptx::wgmma_bf16(scores, queries.held[product % kHeld], b, product);
          continue;
        }
      ptx::wgmma_bf16(scores, ptx::matrix_of(left + block * (kPairs * 128) + i * 32, 1024), b,
                      product);
    }
  ptx::warpgroup_commit();
}

// The scores of one step; gives the places of its keys back.
template <int kDim, Source kSource, int kScores>
__device__ inline void score(Queries<kSource>& queries, int first_key, Loads& keys,
                             float (&scores)[kScores]) {
  using P = Plan<kDim>;
  Loads done = keys;
  ptx::pin(scores);
#pragma unroll
  for (int load = 0; load < P::kLoads; ++load, ++keys.index)
    start_scores<kDim, kSource>(queries, load, first_key, keys, scores);
#pragma unroll
  for (int load = 0; load < P::kLoads; ++load, ++done.index) {
    if (load + 1 < P::kLoads)
      ptx::warpgroup_wait<1>();
    else
      ptx::warpgroup_wait<0>();
    give_back<kSource>(done.empty());
  }
  ptx::pin(scores);
}

// Columns of a product of values. Weights that lie in shared memory are read for each product, so
// there it has all of the warpgroup's.
template <int kDim, Source kSource>
constexpr int kWidthOf =
    kSource == Source::kShared ? Plan<kDim>::kColumns : std::min(Plan<kDim>::kColumns, 128);

template <int kDim, Source kSource>
struct Sums {
  static constexpr int kWidth = kWidthOf<kDim, kSource>;
  float parts[Plan<kDim>::kColumns / kWidth][kWidth / 2] = {};

  // Columns 8 j + 2t (c 0, 2) and 8 j + 2t + 1 of pair g (c 0, 1) and g + 8.
  __device__ float& at(int j, int c) {
    constexpr int kTiles = kWidth / 8;
    return parts[j / kTiles][j % kTiles * 4 + c];
  }
};

// What was summed before, where a larger score was found.
template <typename S>
__device__ inline void rescale(const float2& factor, S& sums) {
  // Most steps find none.
  if (__all_sync(0xffffffffU, factor.x == 1.0F && factor.y == 1.0F)) return;
#pragma unroll
  for (auto& part : sums.parts)
#pragma unroll
    for (int i = 0; i < S::kWidth / 2; ++i) part[i] *= i / 2 % 2 == 0 ? factor.x : factor.y;
}

// Starts sums += weights x values. `left(i)`: the weights of keys 16 i .. 16 i + 15.
template <int kDim, typename S, typename Left>
__device__ inline void start_values(uint32_t values, S& sums, const Left& left) {
  using P = Plan<kDim>;
#pragma unroll
  for (auto& part : sums.parts) ptx::pin(part);
  ptx::warpgroup_fence();
  if constexpr (S::kWidth > 128) asm volatile("" : "+r"(values));  // as in start_scores()
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int part = 0; part < P::kColumns / S::kWidth; ++part)
      ptx::wgmma_bf16_rows(
          sums.parts[part], left(i),
          ptx::matrix_of(values + part * (S::kWidth / 64) * P::kColumnBytes + i * 2048, 1024,
                         P::kColumnBytes));
  ptx::warpgroup_commit();
}
template <typename S>
__device__ inline void finish_values(S& sums) {
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (auto& part : sums.parts) ptx::pin(part);
}

// A thread's columns of 16 are one word of the operand.
template <int kDim, Source kSource>
__device__ void store_pairs(const Job& job, const Pair (&pairs)[2], const Running& running,
                            int first_column, Sums<kDim, kSource>& sums) {
  const WideAttention& attention = job.attention;
  const WideOperand& out = attention.out;
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = quad_sum(running.total[half]);
    const Pair& pair = pairs[half];
    if (pair.row < 0) continue;
    float inverse = __frcp_rn(total);
    if constexpr (kSource != Source::kBf16) inverse *= attention.kv.v_scale;
#pragma unroll
    for (int j = 0; j < Plan<kDim>::kColumns / 8; j += 2) {
      const int column = first_column + j * 8;
      if (column >= attention.head_dim) continue;
      uint32_t two[2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        two[i] = e4m3x2(round_bf16(sums.at(j + i, half * 2) * inverse),
                        round_bf16(sums.at(j + i, half * 2 + 1) * inverse), out.divisor());
      *reinterpret_cast<uint32_t*>(out.data + wide_word(out.capacity, pair.row,
                                                        pair.head * attention.head_dim + column,
                                                        t)) = two[0] | (two[1] << 16);
    }
  }
}

// What a warpgroup does with its pairs.
template <int kDim, Source kSource>
struct Attending {
  using P = Plan<kDim>;
  static constexpr bool kHalves = kScoresHalves<kDim, kSource>;
  using Weights = uint32_t[kKeys / 4];

  const Job& job;
  const Block& block;
  int warpgroup;
  int first_pair;
  Pair pairs[2];
  Queries<kSource> queries;
  Loads keys;
  Loads values;
  Halves halves;
  // Every pair sees all keys from the first to the second of these.
  int sees_from;
  int sees_to;
  float scale;
  Running running = {};

  __device__ Attending(const Job& job_in, const Block& block_in, int warpgroup_in, int kv_head,
                       uint32_t shared)
      : job(job_in),
        block(block_in),
        warpgroup(warpgroup_in),
        first_pair(P::kSplit ? 0 : warpgroup * kPairs),
        queries{shared + first_pair * kDim * 2},
        keys(loads_of<kDim>(shared, false)),
        values(loads_of<kDim>(shared, true)),
        halves{shared + P::kMaximaAt, shared + P::kWeightsAt, warpgroup},
        sees_from(first_key_of(job.attention.window, block.last_position())),
        sees_to(block.first_position),
        scale(kSource != Source::kBf16 ? job.attention.kv.k_scale * kLog2E : kLog2E) {
    const int thread = static_cast<int>(threadIdx.x);
    const int own = first_pair + thread % 128 / 32 * 16 + thread % 32 / 4;
    pairs[0] = load_pair(job, block, kv_head, own);
    pairs[1] = load_pair(job, block, kv_head, own + 8);
    // Every second load is its own.
    if (P::kSplit) values.index = static_cast<uint32_t>(warpgroup);
  }
  __device__ bool hides(int step) const {
    return step * kKeys < sees_from || (step + 1) * kKeys - 1 > sees_to;
  }
  // Scores by turns: while one warpgroup's scores become weights, the other's are made. Not where
  // they share what is loaded next and would keep it waiting.
  __device__ float2 weigh_step(int step, Weights& weights) {
    if (!P::kSplit && (warpgroup == 1 || step > block.first_step()))
      ptx::named_barrier(kTurnBarrier + warpgroup, kComputing);
    float scores[kKeys / 2];
    score<kDim, kSource>(queries, 0, keys, scores);
    if (!P::kSplit && (warpgroup == 0 || step < block.last_step()))
      ptx::named_arrive(kTurnBarrier + 1 - warpgroup, kComputing);
    if (hides(step)) hide(pairs, step * kKeys, scores);
    return weigh(scores, largest_of(scores), scale, running, weights);
  }
  // The same with scores of half of the keys; weights of all are where both find them.
  __device__ float2 weigh_half(int step, float (&scores)[kKeys / 4]) {
    if (hides(step)) hide(pairs, step * kKeys + first_scored(), scores);
    const float2 own = largest_of(scores);
    const float2 theirs = halves.exchange(own);
    uint32_t weights[kKeys / 8];
    const float2 factor = weigh(scores, make_float2(fmaxf(own.x, theirs.x), fmaxf(own.y, theirs.y)),
                                scale, running, weights);
    halves.join(weights, step);
    return factor;
  }
  __device__ int first_scored() const { return warpgroup * (kKeys / 2); }
  __device__ void wait_values(int step) {
    values.wait_full();
    if constexpr (kSource == Source::kShared) {
      const int seen = block.last_key % kKeys + 1;
      if (step == block.last_step() && seen < kKeys)
        clear_values<kDim>(values.address(), seen, kTurnBarrier + warpgroup);
    }
    ptx::fence_async_shared();
  }
  __device__ void give_values_back() {
    give_back<kSource>(values.empty());
    values.index += P::kLoads;
  }
  __device__ void start_half_values(int step, Sums<kDim, kSource>& sums) {
    wait_values(step);
    start_values<kDim>(values.address(), sums, [&](int i) {
      return ptx::matrix_of(halves.weights_of(step) + i * 32, 1024);
    });
  }
  __device__ void steps(Sums<kDim, kSource>& sums) {
    for (int step = block.first_step(); step <= block.last_step(); ++step) {
      Weights weights;
      const float2 factor = weigh_step(step, weights);
      wait_values(step);
      rescale(factor, sums);
      ptx::pin(weights);
      start_values<kDim>(values.address(), sums, [&](int i) { return &weights[i * 4]; });
      finish_values(sums);
      give_values_back();
    }
  }
  // While a step's values are added up the next one's scores become weights.
  __device__ void steps_of_halves(Sums<kDim, kSource>& sums) {
    float scores[kKeys / 4];
    int step = block.first_step();
    score<kDim, kSource>(queries, first_scored(), keys, scores);
    weigh_half(step, scores);
    for (; step < block.last_step(); ++step) {
      Loads done = keys;
      ptx::pin(scores);
#pragma unroll
      for (int load = 0; load < P::kLoads; ++load, ++keys.index)
        start_scores<kDim, kSource>(queries, load, first_scored(), keys, scores);
      start_half_values(step, sums);
      ptx::warpgroup_wait<1>();
      ptx::pin(scores);
#pragma unroll
      for (int load = 0; load < P::kLoads; ++load, ++done.index) give_back<kSource>(done.empty());
      const float2 factor = weigh_half(step + 1, scores);
      finish_values(sums);
      give_values_back();
      rescale(factor, sums);
    }
    start_half_values(step, sums);
    finish_values(sums);
    give_values_back();
  }
  // Of both warpgroups, in one of the lanes whose totals are added up.
  __device__ void join_totals() {
    const float2 own = make_float2(quad_sum(running.total[0]), quad_sum(running.total[1]));
    const float2 theirs = halves.exchange(own);
    const bool is_first = threadIdx.x % 4 == 0;
    running.total[0] = is_first ? own.x + theirs.x : 0.0F;
    running.total[1] = is_first ? own.y + theirs.y : 0.0F;
  }
};

template <int kDim, Source kSource>
__device__ void attend(const Job& job, const Block& block, int kv_head, uint32_t shared) {
  using P = Plan<kDim>;
  using A = Attending<kDim, kSource>;
  // Through a shuffle, so that the compiler knows it is one value for the warp.
  const int warpgroup = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 128, 0);
  A attending(job, block, warpgroup, kv_head, shared);
  load_queries<kDim>(job, block, kv_head, shared);
  attending.queries.hold();
  Sums<kDim, kSource> sums;
  if constexpr (A::kHalves) {
    attending.steps_of_halves(sums);
    attending.join_totals();
  } else {
    attending.steps(sums);
  }
  store_pairs<kDim, kSource>(job, attending.pairs, attending.running,
                             P::kSplit ? warpgroup * P::kColumns : 0, sums);
}

template <int kDim, Source kSource>
__device__ void init_barriers(uint32_t shared) {
  using P = Plan<kDim>;
  constexpr int kShares = kSource == Source::kShared ? kCluster : 1;
  for (const bool values : {false, true}) {
    const uint32_t barriers = loads_of<kDim>(shared, values).barriers;
    // Full when the copies of all its threads are done, or the bytes are there; empty when every
    // warp that uses it says so.
    for (int i = 0; i < 2; ++i) {
      ptx::barrier_init(barriers + i * 8,
                        kSource == Source::kShared ? 1 : 32 * kCopyWarps<kSource>);
      ptx::barrier_init(barriers + 16 + i * 8, (P::kSplit && values ? 4 : 8) * kShares);
    }
  }
  ptx::fence_barrier_init();
}

// grid (rows, KV head)
template <int kDim, Source kSource>
__global__ void __launch_bounds__(kThreads<kSource>, 1)
    wide_attention_kernel(const Job job, const __grid_constant__ TensorMaps maps) {
  if (!card::kWarpgroupProducts) __trap();  // never launched
  constexpr bool kShared = kSource == Source::kShared;
  extern __shared__ __align__(1024) uint8_t memory[];
  allow_next();
  const uint32_t shared = ptx::shared_address(memory);
  if (threadIdx.x == 0) init_barriers<kDim, kSource>(shared);
  if constexpr (kShared)
    ptx::cluster_barrier();
  else
    __syncthreads();
  wait_for_previous();
  const Block block = load_block(job, kShared ? kCluster : 1);
  if (block.last_key < 0) return;
  const int kv_head = static_cast<int>(blockIdx.y);
  if (threadIdx.x >= kComputing) {
    ptx::lower_registers<kSource == Source::kE4m3 ? 64 : 56>();
    if constexpr (kShared) {
      const int warp = static_cast<int>(threadIdx.x - kComputing) / 32;
      ptx::fence_async_global();
      if (warp % 2 == 0) share_steps<kDim>(job, maps, block, kv_head, shared, warp > 0);
      __syncwarp();
    } else if constexpr (kSource == Source::kE4m3) {
      widen_steps<kDim>(job, block, kv_head, shared);
    } else {
      copy_steps<kDim>(job, block, kv_head, shared);
    }
  } else {
    ptx::raise_registers<kSource == Source::kE4m3 ? 192 : 224>();
    attend<kDim, kSource>(job, block, kv_head, shared);
  }
  // The other thread block may still copy to, or arrive at, this one's memory.
  if constexpr (kShared) ptx::cluster_barrier();
}

template <int kDim, Source kSource>
void launch_as(const Stream& stream, Job job) {
  using P = Plan<kDim>;
  auto* const kernel = wide_attention_kernel<kDim, kSource>;
  constexpr int kBytes = kSource == Source::kE4m3       ? P::kBytesFp8
                         : kScoresHalves<kDim, kSource> ? P::kBytesHalves
                                                        : P::kBytes;
  static const bool configured = [kernel] {
    TANDEM_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    return true;
  }();
  (void)configured;
  job.block_rows = P::kBlockPairs / job.group;
  if (job.block_rows > kWideTileRows) job.block_rows = kWideTileRows;
  const int of_tile = (kWideTileRows + job.block_rows - 1) / job.block_rows;
  TensorMaps maps{};
  if constexpr (kSource == Source::kShared) {
    const WideAttention& attention = job.attention;
    const bool widened = attention.widened.k != nullptr;
    const KvLayer& from = widened ? attention.widened : attention.kv;
    const int columns = widened ? attention.num_kv_heads * kDim : kDim;
    const int together =
        widened ? kKeys / kCluster : std::min(attention.places.block_size, kKeys / kCluster);
    maps = {tensor_map(from.k, columns, together), tensor_map(from.v, columns, together)};
  }
  launch_clusters(stream, kSource == Source::kShared ? kCluster : 1, kernel,
                  dim3(static_cast<unsigned>(job.tiles.num_tiles * of_tile),
                       static_cast<unsigned>(job.attention.num_kv_heads)),
                  dim3(kThreads<kSource>), kBytes, job, maps);
}

// Whether the rows of two thread blocks share keys enough.
bool shares_rows(int group) {
  return kWideTileRows % (kCluster * (Plan<512>::kBlockPairs / group)) == 0;
}

// Whether all keys, besides, lie in pages of which copies take whole ones.
bool takes_shared(const Job& job) {
  const WideAttention& attention = job.attention;
  const int block_size = attention.places.block_size;
  return attention.window == 0 && attention.chunk.k == nullptr && attention.places.ring_len == 0 &&
         shares_rows(job.group) && block_size >= 8 &&
         std::has_single_bit(static_cast<unsigned>(block_size));
}

template <int kDim>
void launch_all(const Stream& stream, const Job& job) {
  if constexpr (kDim == 512)
    if (job.attention.widened.k != nullptr || (!job.attention.kv.is_fp8 && takes_shared(job)))
      return launch_as<kDim, Source::kShared>(stream, job);
  if (job.attention.kv.is_fp8) return launch_as<kDim, Source::kE4m3>(stream, job);
  launch_as<kDim, Source::kBf16>(stream, job);
}

// `job` but for its rows of a thread block.
void launch_for_head_dim(const Stream& stream, const Job& job) {
  switch (job.attention.head_dim) {
    case 32:
    case 64:
      return launch_all<64>(stream, job);
    case 128:
      return launch_all<128>(stream, job);
    case 256:
      return launch_all<256>(stream, job);
    case 512:
      return launch_all<512>(stream, job);
    default:
      TANDEM_GPU_CHECK(!"wide_attention: head_dim 32, 64, 128, 256 or 512");
  }
}

}  // namespace
}  // namespace wide

bool takes_widened_keys(int num_heads, int num_kv_heads, int head_dim) {
  const int group = num_heads / num_kv_heads;
  return head_dim == 512 && group <= wide::kPairs && wide::shares_rows(group);
}

void wide_attention(const Stream& stream, const Rows& rows, const WideTiles& tiles,
                    const WideAttention& job) {
  TANDEM_GPU_CHECK(job.num_kv_heads > 0 && job.num_heads % job.num_kv_heads == 0);
  TANDEM_GPU_CHECK(job.num_heads / job.num_kv_heads <= wide::kPairs && has_warpgroup_products());
  TANDEM_GPU_CHECK(rows.num_rows > 0 && rows.num_rows <= job.out.capacity && tiles.num_tiles > 0);
  TANDEM_GPU_CHECK(!job.chunk.is_fp8 && job.kv.k_scale > 0);
  TANDEM_GPU_CHECK(job.widened.k == nullptr ||
                   (takes_widened_keys(job.num_heads, job.num_kv_heads, job.head_dim) &&
                    job.window == 0 && tiles.widened_rows != nullptr));
  wide::launch_for_head_dim(stream, {job, rows, tiles, job.num_heads / job.num_kv_heads, 0});
}

}  // namespace tandem::ops::cuda
