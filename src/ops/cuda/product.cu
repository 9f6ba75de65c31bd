// The product of few rows with many weights, bound by how fast weights can be read.
//
// Weights are the tensor cores' left operand, from registers: 64 output features of a warpgroup by
// all rows, which lie in shared memory. One thread copies a share of the packed weights, one run of
// bytes, into a ring there, and it begins before the kernels in front have finished: only the
// activations depend on them. Two warpgroups take 64 output features each and add over the inputs
// in index order.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/ptx.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kWarps = 8;  // two warpgroups that multiply; one more warp copies
constexpr int kThreads = (kWarps + 1) * 32;
// A thread block's weights from which on a ring of all shared memory is worth its price.
constexpr int64_t kLongShare = 200 * 1024;

// The product of kTiles * 8 rows. With a short ring two thread blocks fit on a multiprocessor, so
// that the next product fills its ring while this one ends; a long one keeps more bytes in flight.
// The registers of 128 rows leave room for one thread block alone.
template <int kTilesIn, bool kFp8In, bool kLongIn>
struct Shape {
  static constexpr int kTiles = kTilesIn;
  static constexpr bool kFp8 = kFp8In;
  static constexpr bool kLong = kLongIn || kTiles == 16;

  static constexpr int kBlockBytes = kFp8 ? 4096 : 8192;
  static constexpr int kTileBytes = kFp8 ? 256 : 512;    // operand of 8 rows in a block
  static constexpr int kRowBytes = kTiles * kTileBytes;  // of all rows
  static constexpr int kStageBlocks = kFp8 ? 4 : 2;      // of one stage of the ring
  static constexpr int kStageBytes = kStageBlocks * (kBlockBytes + kRowBytes);
  static constexpr int kStages = (kLong ? 216 : 108) * 1024 / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + 2 * kStages * 8;
};

// Walks over the blocks [begin, end) of a share, a stage at a time: up to a multiple of
// kStageBlocks within the set, so that a stage is one run of weights and one run of the operand.
// Where E4M3 sums go to FP32 registers follows from it: it depends on the share alone.
template <int kStageBlocks>
struct Walk {
  int block;   // first of the stage
  int within;  // its place in its set
  int count;   // blocks of the stage
  int end;
  int set_blocks;

  __device__ Walk(int begin, int end_in, int set_blocks_in)
      : block(begin),
        within(begin % set_blocks_in),
        count(0),
        end(end_in),
        set_blocks(set_blocks_in) {
    measure();
  }
  __device__ bool done() const { return block >= end; }
  // The share has no more of this set.
  __device__ bool ends_piece() const {
    return within + count == set_blocks || block + count == end;
  }
  __device__ void advance() {
    block += count;
    within += count;
    if (within == set_blocks) within = 0;
    measure();
  }

 private:
  __device__ void measure() {
    count = min(kStageBlocks - within % kStageBlocks, min(set_blocks - within, end - block));
  }
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
};

template <typename S>
__device__ void copy_share(const uint8_t* weights, const uint8_t* operand, int set_blocks,
                           int begin, int end, Ring<S> ring) {
  const uint64_t policy = ptx::evict_first_policy();
  using ShareWalk = Walk<S::kStageBlocks>;
  const auto copy_weights = [&](int stage, const ShareWalk& walk) {
    ptx::barrier_arrive_expect(ring.full(stage), walk.count * (S::kBlockBytes + S::kRowBytes));
    ptx::bulk_copy(ring.weights(stage), weights + static_cast<int64_t>(walk.block) * S::kBlockBytes,
                   walk.count * S::kBlockBytes, ring.full(stage), policy);
  };
  const auto copy_rows = [&](int stage, const ShareWalk& walk) {
    ptx::bulk_copy(ring.rows(stage), operand + static_cast<int64_t>(walk.within) * S::kRowBytes,
                   walk.count * S::kRowBytes, ring.full(stage));
  };
  ShareWalk walk(begin, end, set_blocks);
  ShareWalk rows = walk;
  int filled = 0;
  for (; filled < S::kStages && !walk.done(); ++filled, walk.advance()) copy_weights(filled, walk);
  wait_for_previous();
  ptx::fence_async_global();
  for (int stage = 0; stage < filled; ++stage, rows.advance()) copy_rows(stage, rows);
  for (RingPlace<S::kStages> place; !walk.done(); walk.advance(), place.advance()) {
    ptx::barrier_wait(ring.empty(place.stage), place.parity);
    copy_weights(place.stage, walk);
    copy_rows(place.stage, walk);
  }
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
    float stage[S::kTiles * 4];
    ptx::pin(stage);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      ptx::wgmma_e4m3(stage, a[i], ptx::rows_of(rows + i * S::kRowBytes, S::kTileBytes), i);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
    ptx::pin(stage);
#pragma unroll
    for (int i = 0; i < S::kTiles * 4; ++i) sums[i] += stage[i];
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
__device__ void compute_share(float* partials, const Partials& plan, int begin, int end,
                              Ring<S> ring) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t own = static_cast<uint32_t>(warp * (S::kBlockBytes / kWarps) + lane * 16);
  float sums[S::kTiles * 4] = {};
  int set = begin / plan.set_blocks;
  RingPlace<S::kStages> place;
  for (Walk<S::kStageBlocks> walk(begin, end, plan.set_blocks); !walk.done();
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
    const int slot = static_cast<int>(blockIdx.x) - plan.share_of(set * plan.set_blocks);
    const int64_t piece = static_cast<int64_t>(set) * plan.max_pieces + slot;
    store_piece<S::kTiles>(sums, partials + piece * (S::kTiles * 8 * kSetColumns));
    ++set;
#pragma unroll
    for (float& sum : sums) sum = 0.0F;
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads, S::kLong ? 1 : 2)
    product_kernel(const uint8_t* weights, const uint8_t* operand, float* partials, Partials plan) {
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
  const int begin = plan.share_begin(static_cast<int>(blockIdx.x));
  const int end = plan.share_begin(static_cast<int>(blockIdx.x) + 1);
  if (threadIdx.x >= kWarps * 32) {
    if (threadIdx.x == kWarps * 32)
      copy_share<S>(weights, operand, plan.set_blocks, begin, end, ring);
    return;
  }
  wait_for_previous();  // the last product's partial sums have been read
  compute_share<S>(partials, plan, begin, end, ring);
}

template <typename S>
void launch_product(const Stream& stream, const PackedLinear& weight, const void* operand,
                    float* partials) {
  static const bool configured = [] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(product_kernel<S>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes));
    return true;
  }();
  (void)configured;
  launch(stream, product_kernel<S>, dim3(static_cast<unsigned>(weight.num_shares)), dim3(kThreads),
         S::kBytes, weight.data.as<uint8_t>(), static_cast<const uint8_t*>(operand), partials,
         weight.partials(nullptr, S::kTiles * 8));
}

template <bool kFp8, bool kLong>
void launch_for_tiles(const Stream& stream, const PackedLinear& weight, const void* operand,
                      int num_tiles, float* partials) {
  switch (num_tiles) {
    case 1:
      return launch_product<Shape<1, kFp8, kLong>>(stream, weight, operand, partials);
    case 2:
      return launch_product<Shape<2, kFp8, kLong>>(stream, weight, operand, partials);
    case 4:
      return launch_product<Shape<4, kFp8, kLong>>(stream, weight, operand, partials);
    case 8:
      return launch_product<Shape<8, kFp8, false>>(stream, weight, operand, partials);
    case 16:
      return launch_product<Shape<16, kFp8, true>>(stream, weight, operand, partials);
    default:
      check_condition(false, "num_tiles 1, 2, 4, 8 or 16");
  }
}

}  // namespace

void product(const Stream& stream, const PackedLinear& weight, const void* operand, int num_tiles,
             float* partials) {
  const bool is_long = weight.size_bytes() / weight.num_shares >= kLongShare;
  const auto run = weight.type == PackedType::kFp8
                       ? is_long ? launch_for_tiles<true, true> : launch_for_tiles<true, false>
                   : is_long ? launch_for_tiles<false, true>
                             : launch_for_tiles<false, false>;
  run(stream, weight, operand, num_tiles, partials);
}

}  // namespace tandem::ops::cuda
