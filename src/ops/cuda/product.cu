// The product of few rows with many weights, bound by how fast weights can be read.
//
// Weights are the tensor cores' left operand, from registers: 64 output features of a warpgroup by
// all rows, which lie in shared memory. One thread copies a share of the packed weights, one run of
// bytes, into a ring there, and it begins before the kernels in front have finished: only the
// activations depend on them. Two warpgroups take 64 output features each and add over the inputs
// in index order. What they leave is partial sums, or gate and up joined (gelu_product.h).
#include "ops/cuda/gelu_product.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/row_math.cuh"
#include "ops/cuda/wide_operand.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kWarps = 8;  // two warpgroups that multiply; one more warp copies
constexpr int kThreads = (kWarps + 1) * 32;
// A thread block's weights from which on a ring of all shared memory is worth its price: nothing
// fits beside it. The 12B's q, k, v (238 KB) are faster with a short one, 10.0 against 11.5 us, in
// a chain of products as fast, and leave attention room to fetch old keys meanwhile.
constexpr int64_t kLongShare = 320 * 1024;
// Flags in the exchange, whatever the weight: none of them is another weight's sums.
constexpr int kMaxShares = 1024;
constexpr int64_t kFlagBytes = kMaxShares * 4;
constexpr int kTileSumBytes = 8 * kSetColumns * 4;  // of a set and 8 rows

// The product of kTiles * 8 rows. With a short ring two thread blocks fit on a multiprocessor, so
// that the next product fills its ring while this one ends; a long one keeps more bytes in flight.
// The registers of 128 rows, and of 64 that are joined, leave room for one thread block alone.
template <int kTilesIn, bool kFp8In, bool kGeluIn, bool kLongIn>
struct Shape {
  static constexpr int kTiles = kTilesIn;
  static constexpr bool kFp8 = kFp8In;
  static constexpr bool kGelu = kGeluIn;
  static constexpr bool kLong = kLongIn;

  static constexpr int kBlockBytes = kFp8 ? 4096 : 8192;
  static constexpr int kTileBytes = kFp8 ? 256 : 512;    // operand of 8 rows in a block
  static constexpr int kRowBytes = kTiles * kTileBytes;  // of all rows
  static constexpr int kStageBlocks = kFp8 ? 4 : 2;      // of one stage of the ring
  static constexpr int kStageBytes = kStageBlocks * (kBlockBytes + kRowBytes);
  static constexpr int kJoinTiles = kTiles < 8 ? kTiles : 8;  // joined at a time
  static constexpr int kStagingBytes = kGelu ? kJoinTiles * 2048 : 0;
  static constexpr int kStages = ((kLong ? 216 : 108) * 1024 - kStagingBytes) / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + 2 * kStages * 8 + kStagingBytes;
  // Of how many tiles the sums fit into a stage.
  static constexpr int stage_tiles() { return kStageBytes / kTileSumBytes; }
};

struct Job {
  const uint8_t* weights;
  const uint8_t* operand;
  Partials plan;
  float* partials;
  int intermediate;
  GeluProduct gelu;
};

// Walks over the blocks [begin, end) of a share, a stage at a time: up to a multiple of
// kStageBlocks within the set, so that a stage is one run of weights and one run of the operand.
// Sets come from the last to the first, a set's blocks in order. Where E4M3 sums go to FP32
// registers follows from it: it depends on the share alone.
template <int kStageBlocks>
struct Walk {
  int set;
  int within;  // the stage's first block in its set
  int count;   // blocks of the stage
  int left;    // blocks of the share's piece of the set, from the stage on
  int begin;
  int set_blocks;

  __device__ Walk(int begin_in, int end, int set_blocks_in)
      : set((end - 1) / set_blocks_in), begin(begin_in), set_blocks(set_blocks_in) {
    start(end);
  }
  __device__ bool done() const { return left <= 0; }
  __device__ int block() const { return set * set_blocks + within; }
  __device__ bool ends_piece() const { return count == left; }
  __device__ bool begins_set() const { return set * set_blocks >= begin; }
  __device__ bool ends_set() const { return within + count == set_blocks; }
  __device__ void advance() {
    within += count;
    left -= count;
    if (left > 0) {
      measure();
    } else {
      --set;
      start((set + 1) * set_blocks);
    }
  }

 private:
  // The piece of the set before `end`.
  __device__ void start(int end) {
    within = max(begin - set * set_blocks, 0);
    left = end - block();
    measure();
  }
  __device__ void measure() { count = min(kStageBlocks - within % kStageBlocks, left); }
};

template <typename S>
struct Ring {
  uint32_t base;
  __device__ uint32_t weights(int stage) const { return base + stage * S::kStageBytes; }
  __device__ uint32_t rows(int stage) const {
    return weights(stage) + S::kStageBlocks * S::kBlockBytes;
  }
  __device__ uint32_t full(int stage) const {
    return base + S::kStages * S::kStageBytes + stage * 8;
  }
  __device__ uint32_t empty(int stage) const { return full(S::kStages + stage); }
  __device__ uint32_t staging() const { return full(2 * S::kStages); }
};

// A piece of a set's sums in the exchange, as its threads hold them: [kTiles][256 threads][4].
template <typename S>
__device__ inline uint8_t* published(const Job& job, int share) {
  return static_cast<uint8_t*>(job.gelu.exchange) + kFlagBytes +
         static_cast<int64_t>(share) * S::kTiles * kTileSumBytes;
}
// How many warps of each share have left theirs.
__device__ inline uint32_t* flags_of(const Job& job) {
  return static_cast<uint32_t*>(job.gelu.exchange);
}

// What the block before this one has of the share's first set, which comes last.
template <typename S>
__device__ void copy_published(const Job& job, Ring<S> ring, RingPlace<S::kStages> place) {
  const int share = static_cast<int>(blockIdx.x) - 1;
  uint32_t* const flag = flags_of(job) + share;
  while (ptx::load_acquire(flag) != kWarps) __nanosleep(20);
  *flag = 0;
  ptx::fence_async_global();
  for (int tile = 0; tile < S::kTiles; tile += S::stage_tiles(), place.advance()) {
    const uint32_t bytes = min(S::stage_tiles(), S::kTiles - tile) * kTileSumBytes;
    ptx::barrier_wait(ring.empty(place.stage), place.parity ^ 1);
    ptx::barrier_arrive_expect(ring.full(place.stage), bytes);
    ptx::bulk_copy(ring.weights(place.stage), published<S>(job, share) + tile * kTileSumBytes,
                   bytes, ring.full(place.stage));
  }
}

template <typename S>
__device__ void copy_share(const Job& job, int begin, int end, Ring<S> ring) {
  const uint64_t policy = ptx::evict_first_policy();
  using ShareWalk = Walk<S::kStageBlocks>;
  const auto copy_weights = [&](int stage, const ShareWalk& walk) {
    ptx::barrier_arrive_expect(ring.full(stage), walk.count * (S::kBlockBytes + S::kRowBytes));
    ptx::bulk_copy(ring.weights(stage),
                   job.weights + static_cast<int64_t>(walk.block()) * S::kBlockBytes,
                   walk.count * S::kBlockBytes, ring.full(stage), policy);
  };
  const auto copy_rows = [&](int stage, const ShareWalk& walk) {
    ptx::bulk_copy(ring.rows(stage), job.operand + static_cast<int64_t>(walk.within) * S::kRowBytes,
                   walk.count * S::kRowBytes, ring.full(stage));
  };
  ShareWalk walk(begin, end, job.plan.set_blocks);
  ShareWalk rows = walk;
  RingPlace<S::kStages> place;
  int filled = 0;
  for (; filled < S::kStages && !walk.done(); ++filled, walk.advance(), place.advance())
    copy_weights(filled, walk);
  wait_for_previous();
  ptx::fence_async_global();
  for (int stage = 0; stage < filled; ++stage, rows.advance()) copy_rows(stage, rows);
  for (; !walk.done(); walk.advance(), place.advance()) {
    ptx::barrier_wait(ring.empty(place.stage), place.parity ^ 1);
    copy_weights(place.stage, walk);
    copy_rows(place.stage, walk);
  }
  if constexpr (S::kGelu)
    if (begin % job.plan.set_blocks != 0) copy_published<S>(job, ring, place);
}

// sums += the products of `kCount` blocks of a stage.
template <typename S, int kCount>
__device__ inline void add_blocks(float (&sums)[S::kTiles * 4], uint32_t weights, uint32_t rows) {
  constexpr int kHalves = S::kFp8 ? 1 : 2;  // products of a block
  uint4 a[kCount * kHalves];
#pragma unroll
  for (int i = 0; i < kCount * kHalves; ++i)
    a[i] = ptx::load_shared(weights + i / kHalves * S::kBlockBytes + i % kHalves * 512);
  if constexpr (S::kFp8) {
    // 128 rows in two halves: one is added up while the products of the other run.
    constexpr int kHalfTiles = S::kTiles == 16 ? 8 : S::kTiles;
    constexpr int kParts = S::kTiles / kHalfTiles;
    float stage[kParts][kHalfTiles * 4];
    for (auto& part : stage) ptx::pin(part);
    ptx::warpgroup_fence();
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const uint32_t part_rows = rows + part * kHalfTiles * S::kTileBytes;
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        ptx::wgmma_e4m3(stage[part], a[i],
                        ptx::rows_of(part_rows + i * S::kRowBytes, S::kTileBytes), i);
      ptx::warpgroup_commit();
    }
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      if (part + 1 < kParts)
        ptx::warpgroup_wait<1>();
      else
        ptx::warpgroup_wait<0>();
      ptx::pin(stage[part]);
#pragma unroll
      for (int i = 0; i < kHalfTiles * 4; ++i) sums[part * kHalfTiles * 4 + i] += stage[part][i];
    }
  } else {
    ptx::pin(sums);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kCount * 2; ++i)
      ptx::wgmma_bf16_inputs(
          sums, a[i], ptx::rows_of(rows + i / 2 * S::kRowBytes + i % 2 * 256, S::kTileBytes));
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
    ptx::pin(sums);
  }
}

// This warp's 16 features of all rows.
template <int kTiles>
__device__ inline void store_piece(float (&sums)[kTiles * 4], float* piece) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* const column = piece + threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    float* const row = column + (tile * 8 + lane % 4 * 2) * kSetColumns;
    row[0] = sums[tile * 4];
    row[kSetColumns] = sums[tile * 4 + 1];
    row[8] = sums[tile * 4 + 2];
    row[kSetColumns + 8] = sums[tile * 4 + 3];
  }
}

template <typename S>
__device__ inline void publish(const Job& job, const float (&sums)[S::kTiles * 4]) {
  auto* const target = reinterpret_cast<float4*>(published<S>(job, static_cast<int>(blockIdx.x)));
#pragma unroll
  for (int i = 0; i < S::kTiles; ++i)
    __stcg(target + i * (kWarps * 32) + threadIdx.x,
           make_float4(sums[i * 4], sums[i * 4 + 1], sums[i * 4 + 2], sums[i * 4 + 3]));
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::add_release(flags_of(job) + blockIdx.x, 1);
}

// sums = what the block before this one has of the same set, the next stages of the ring, + sums.
template <typename S>
__device__ inline void add_published(float (&sums)[S::kTiles * 4], Ring<S> ring,
                                     RingPlace<S::kStages> place) {
#pragma unroll
  for (int i = 0; i < S::kTiles; ++i) {
    if (i % S::stage_tiles() == 0) {
      place.advance();
      ptx::barrier_wait(ring.full(place.stage), place.parity);
    }
    const uint4 first = ptx::load_shared(ring.weights(place.stage) +
                                         (i % S::stage_tiles() * kWarps * 32 + threadIdx.x) * 16);
    sums[i * 4] = __uint_as_float(first.x) + sums[i * 4];
    sums[i * 4 + 1] = __uint_as_float(first.y) + sums[i * 4 + 1];
    sums[i * 4 + 2] = __uint_as_float(first.z) + sums[i * 4 + 2];
    sums[i * 4 + 3] = __uint_as_float(first.w) + sums[i * 4 + 3];
  }
}

__device__ inline uint32_t gelu_times(uint32_t gate, uint32_t up) {
  const uint32_t active = bf16x2(gelu_tanh(low_bf16(gate)), gelu_tanh(high_bf16(gate)));
  return bf16x2(low_bf16(active) * low_bf16(up), high_bf16(active) * high_bf16(up));
}

// Stores columns `column` and + 1 (in `low`), + 8 and + 9 of a row, column a multiple of 16 plus 0,
// 2, 4 or 6: an E4M3 operand has them beside each other.
__device__ inline void store_words(const Operand& out, float inverse, int row, int column,
                                   uint32_t low, uint32_t high) {
  if (out.input_scale > 0.0F) {
    const uint32_t word = e4m3x2(low_bf16(low), high_bf16(low), out.input_scale, inverse) |
                          (e4m3x2(low_bf16(high), high_bf16(high), out.input_scale, inverse) << 16);
    *reinterpret_cast<uint32_t*>(static_cast<uint8_t*>(out.data) +
                                 operand_offset(out, row, column)) = word;
  } else {
    store_operand(out, row, column, low_bf16(low), high_bf16(low));
    store_operand(out, row, column + 8, low_bf16(high), high_bf16(high));
  }
}

// Joins gate, of the first warpgroup, and up, of the second. Values go through `staging`,
// [2][tiles] [128 threads] of 8 bytes, kJoinTiles tiles at a time; each warpgroup joins every other
// tile.
template <typename S>
__device__ void join(const Job& job, const float (&sums)[S::kTiles * 4], int set,
                     uint32_t staging) {
  constexpr uint32_t kHalfBytes = S::kStagingBytes / 2;
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t own = staging + threadIdx.x % 128 * 8;
  const float scale = warpgroup == 0 ? job.gelu.gate_scale : job.gelu.up_scale;
  const float inverse = __frcp_rn(job.gelu.out.input_scale);
  const int column = set * (kSetColumns / 2) + static_cast<int>(threadIdx.x) % 128 / 32 * 16;
#pragma unroll
  for (int first = 0; first < S::kTiles; first += S::kJoinTiles) {
    ptx::named_barrier(1, kWarps * 32);  // what was there before has been read
#pragma unroll
    for (int tile = 0; tile < S::kJoinTiles; ++tile) {
      const float* const sum = sums + (first + tile) * 4;
      // Rows 2t and 2t + 1 of features g and g + 8.
      ptx::store_shared(own + warpgroup * kHalfBytes + tile * 1024,
                        make_uint2(bf16x2(sum[0] * scale, sum[1] * scale),
                                   bf16x2(sum[2] * scale, sum[3] * scale)));
    }
    ptx::named_barrier(1, kWarps * 32);
    if (column >= job.intermediate) continue;
#pragma unroll(S::kTiles == 16 ? 2 : 4)
    for (int i = 0; i < S::kJoinTiles; i += 2) {
      const int tile = i + warpgroup;
      if (S::kJoinTiles == 1 && tile == 1) continue;
      const uint2 gate = ptx::load_shared2(own + tile * 1024);
      const uint2 up = ptx::load_shared2(own + kHalfBytes + tile * 1024);
      const uint32_t low = ptx::transpose8x8(gelu_times(gate.x, up.x));
      const uint32_t high = ptx::transpose8x8(gelu_times(gate.y, up.y));
      store_words(job.gelu.out, inverse, (first + tile) * 8 + lane / 4, column + lane % 4 * 2, low,
                  high);
    }
  }
}

// The share's piece of a set is complete.
template <typename S>
__device__ inline void finish_piece(const Job& job, float (&sums)[S::kTiles * 4],
                                    const Walk<S::kStageBlocks>& walk, Ring<S> ring,
                                    const RingPlace<S::kStages>& place) {
  if constexpr (!S::kGelu) {
    const int slot =
        static_cast<int>(blockIdx.x) - job.plan.share_of(walk.set * job.plan.set_blocks);
    const int64_t piece = static_cast<int64_t>(walk.set) * job.plan.max_pieces + slot;
    store_piece<S::kTiles>(sums, job.partials + piece * (S::kTiles * 8 * kSetColumns));
  } else {
    if (!walk.ends_set()) return publish<S>(job, sums);
    if (!walk.begins_set()) add_published<S>(sums, ring, place);
    join<S>(job, sums, walk.set, ring.staging());
  }
}

template <typename S>
__device__ void compute_share(const Job& job, int begin, int end, Ring<S> ring) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t own = static_cast<uint32_t>(warp * (S::kBlockBytes / kWarps) + lane * 16);
  float sums[S::kTiles * 4] = {};
  RingPlace<S::kStages> place;
  for (Walk<S::kStageBlocks> walk(begin, end, job.plan.set_blocks); !walk.done();
       walk.advance(), place.advance()) {
    const uint32_t weights = ring.weights(place.stage) + own;
    const uint32_t rows = ring.rows(place.stage);
    ptx::barrier_wait(ring.full(place.stage), place.parity);
    if (walk.count == S::kStageBlocks) {
      add_blocks<S, S::kStageBlocks>(sums, weights, rows);
    } else {
#pragma unroll 1
      for (int i = 0; i < walk.count; ++i)
        add_blocks<S, 1>(sums, weights + i * S::kBlockBytes, rows + i * S::kRowBytes);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(ring.empty(place.stage));
    if (!walk.ends_piece()) continue;
    finish_piece<S>(job, sums, walk, ring, place);
#pragma unroll
    for (float& sum : sums) sum = 0.0F;
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads, S::kLong ? 1 : 2) product_kernel(const Job job) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  const Ring<S> ring{ptx::shared_address(shared)};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < S::kStages; ++stage) {
      ptx::barrier_init(ring.full(stage), 1);
      ptx::barrier_init(ring.empty(stage), kWarps);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  const int begin = job.plan.share_begin(static_cast<int>(blockIdx.x));
  const int end = job.plan.share_begin(static_cast<int>(blockIdx.x) + 1);
  if (threadIdx.x >= kWarps * 32) {
    if (threadIdx.x == kWarps * 32) copy_share<S>(job, begin, end, ring);
    return;
  }
  wait_for_previous();  // what the last product left has been read
  compute_share<S>(job, begin, end, ring);
}

template <typename S>
void launch_product(const Stream& stream, const PackedLinear& weight, Job job) {
  static const bool configured = [] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(product_kernel<S>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes));
    return true;
  }();
  (void)configured;
  job.weights = weight.data.as<uint8_t>();
  job.plan = weight.partials(nullptr, S::kTiles * 8);
  launch(stream, product_kernel<S>, dim3(static_cast<unsigned>(weight.num_shares)), dim3(kThreads),
         S::kBytes, job);
}

template <bool kFp8, bool kGelu, bool kLong>
void launch_for_tiles(const Stream& stream, const PackedLinear& weight, int num_tiles,
                      const Job& job) {
  switch (num_tiles) {
    case 1:
      return launch_product<Shape<1, kFp8, kGelu, kLong>>(stream, weight, job);
    case 2:
      return launch_product<Shape<2, kFp8, kGelu, kLong>>(stream, weight, job);
    case 4:
      return launch_product<Shape<4, kFp8, kGelu, kLong>>(stream, weight, job);
    case 8:
      return launch_product<Shape<8, kFp8, kGelu, kLong || kGelu>>(stream, weight, job);
    case 16:
      return launch_product<Shape<16, kFp8, kGelu, true>>(stream, weight, job);
    default:
      check_condition(false, "num_tiles 1, 2, 4, 8 or 16");
  }
}

template <bool kGelu>
void launch_for_weight(const Stream& stream, const PackedLinear& weight, int num_tiles,
                       const Job& job) {
  const bool is_long = weight.size_bytes() / weight.num_shares >= kLongShare;
  const auto run = weight.type == PackedType::kFp8 ? is_long ? launch_for_tiles<true, kGelu, true>
                                                             : launch_for_tiles<true, kGelu, false>
                   : is_long ? launch_for_tiles<false, kGelu, true>
                                                   : launch_for_tiles<false, kGelu, false>;
  run(stream, weight, num_tiles, job);
}

}  // namespace

void product(const Stream& stream, const PackedLinear& weight, const void* operand, int num_tiles,
             float* partials) {
  Job job{};
  job.operand = static_cast<const uint8_t*>(operand);
  job.partials = partials;
  launch_for_weight<false>(stream, weight, num_tiles, job);
}

bool takes_gelu_product(const PackedLinear& weight) {
  return weight.gated && weight.max_pieces <= 2;
}

size_t gelu_exchange_bytes(const PackedLinear& weight, int num_rows) {
  const auto piece = static_cast<size_t>(num_rows) * kSetColumns * sizeof(float);
  return kFlagBytes + static_cast<size_t>(weight.num_shares) * piece;
}

void gelu_product(const Stream& stream, const PackedLinear& weight, const void* operand,
                  int num_tiles, const GeluProduct& gelu) {
  TANDEM_GPU_CHECK(takes_gelu_product(weight) && gelu.out.data != operand);
  TANDEM_GPU_CHECK(gelu.out.num_tiles == num_tiles && gelu.exchange != nullptr);
  TANDEM_GPU_CHECK(weight.num_shares <= kMaxShares);
  Job job{};
  job.operand = static_cast<const uint8_t*>(operand);
  job.intermediate = weight.out_features / 2;
  job.gelu = gelu;
  launch_for_weight<true>(stream, weight, num_tiles, job);
}

}  // namespace tandem::ops::cuda
