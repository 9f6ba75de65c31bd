// The product of few rows with many weights, bound by how fast weights can be read.
//
// Weights are the tensor cores' left operand: 16 output features x 16 inputs, 8 rows on the right.
// One thread copies a share of the packed weights, one run of bytes, into a ring in shared memory,
// and it begins before the kernels in front have finished: only the activations depend on them.
// Eight warps take 16 output features each and add over the inputs in index order.
#include "ops/cuda/launch.cuh"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/ptx.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kWarps = 8;  // that compute; one more copies
constexpr int kThreads = (kWarps + 1) * 32;
constexpr int kStageBlocks = 4;  // weight blocks of one stage of the ring

// How much of the ring is in flight: two thread blocks fit on a multiprocessor where rows are few,
// so that the next product fills its ring while this one ends.
template <int kTiles, bool kFp8>
struct Ring {
  static constexpr int kBlockBytes = kFp8 ? 4096 : 8192;
  static constexpr int kRowBytes = kTiles * 512;  // operand of one block
  static constexpr int kStageBytes = kStageBlocks * (kBlockBytes + kRowBytes);
  static constexpr int kBudget = kTiles <= 2 ? 108 * 1024 : 200 * 1024;
  static constexpr int kStages = kBudget / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + 2 * kStages * 8;
};

struct Share {
  int set_blocks;
  int num_shares;
  int64_t total_blocks;
  int max_pieces;
};

// The blocks of the stage that begins at `block`: up to a multiple of kStageBlocks within the set,
// so a stage is one run of weights and one run of the operand.
__device__ inline int stage_blocks(int64_t block, int64_t end, int set_blocks) {
  const int within = static_cast<int>(block % set_blocks);
  int count = kStageBlocks - within % kStageBlocks;
  count = min(count, set_blocks - within);
  return static_cast<int>(min(static_cast<int64_t>(count), end - block));
}

template <int kTiles, bool kFp8>
__device__ void copy_share(const uint8_t* weights, const uint8_t* operand, const Share& share,
                           int64_t begin, int64_t end, uint32_t ring) {
  using R = Ring<kTiles, kFp8>;
  const uint32_t full = ring + R::kStages * R::kStageBytes;
  const uint32_t empty = full + R::kStages * 8;
  const uint64_t policy = ptx::evict_first_policy();
  const auto copy_weights = [&](int stage, int64_t block, int count) {
    const uint32_t target = ring + static_cast<uint32_t>(stage) * R::kStageBytes;
    ptx::barrier_arrive_expect(full + stage * 8,
                               static_cast<uint32_t>(count) * (R::kBlockBytes + R::kRowBytes));
    ptx::bulk_copy(target, weights + block * R::kBlockBytes,
                   static_cast<uint32_t>(count) * R::kBlockBytes, full + stage * 8, policy);
  };
  const auto copy_rows = [&](int stage, int64_t block, int count) {
    const uint32_t target =
        ring + static_cast<uint32_t>(stage) * R::kStageBytes + kStageBlocks * R::kBlockBytes;
    ptx::bulk_copy(target, operand + block % share.set_blocks * R::kRowBytes,
                   static_cast<uint32_t>(count) * R::kRowBytes, full + stage * 8);
  };

  int64_t block = begin;
  int filled = 0;
  for (; filled < R::kStages && block < end; ++filled) {
    const int count = stage_blocks(block, end, share.set_blocks);
    copy_weights(filled, block, count);
    block += count;
  }
  wait_for_previous();
  ptx::fence_async_global();
  block = begin;
  for (int stage = 0; stage < filled; ++stage) {
    const int count = stage_blocks(block, end, share.set_blocks);
    copy_rows(stage, block, count);
    block += count;
  }
  uint32_t parity = 0;
  for (int stage = 0; block < end;) {
    const int count = stage_blocks(block, end, share.set_blocks);
    ptx::barrier_wait(empty + stage * 8, parity);
    copy_weights(stage, block, count);
    copy_rows(stage, block, count);
    block += count;
    if (++stage == R::kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

// acc += the products of one block: 16 features of this warp, all rows.
template <int kTiles, bool kFp8>
__device__ inline void add_block(float (&acc)[kTiles][4], uint32_t weights, uint32_t rows) {
  uint32_t a[8];  // {g, g + 8} x four pairs of inputs
  if constexpr (kFp8) {
    const uint4 w = ptx::load_shared(weights);
    a[0] = ptx::e4m3x2_to_half2(w.x);
    a[1] = ptx::e4m3x2_to_half2(w.z);
    a[2] = ptx::e4m3x2_to_half2(w.x >> 16);
    a[3] = ptx::e4m3x2_to_half2(w.z >> 16);
    a[4] = ptx::e4m3x2_to_half2(w.y);
    a[5] = ptx::e4m3x2_to_half2(w.w);
    a[6] = ptx::e4m3x2_to_half2(w.y >> 16);
    a[7] = ptx::e4m3x2_to_half2(w.w >> 16);
  } else {
    const uint4 low = ptx::load_shared(weights);
    const uint4 high = ptx::load_shared(weights + 512);
    a[0] = low.x, a[1] = low.y, a[2] = low.z, a[3] = low.w;
    a[4] = high.x, a[5] = high.y, a[6] = high.z, a[7] = high.w;
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const uint4 b = ptx::load_shared(rows + tile * 512);
    if constexpr (kFp8) {
      ptx::mma_f16(acc[tile], a[0], a[1], a[2], a[3], b.x, b.y);
      ptx::mma_f16(acc[tile], a[4], a[5], a[6], a[7], b.z, b.w);
    } else {
      ptx::mma_bf16(acc[tile], a[0], a[1], a[2], a[3], b.x, b.y);
      ptx::mma_bf16(acc[tile], a[4], a[5], a[6], a[7], b.z, b.w);
    }
  }
}

template <int kTiles>
__device__ inline void store_piece(float (&acc)[kTiles][4], float* piece, int warp, int lane) {
  float* column = piece + warp * 16 + lane / 4;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    float* row = column + (tile * 8 + lane % 4 * 2) * kSetColumns;
    row[0] = acc[tile][0];
    row[kSetColumns] = acc[tile][1];
    row[8] = acc[tile][2];
    row[kSetColumns + 8] = acc[tile][3];
#pragma unroll
    for (float& value : acc[tile]) value = 0.0F;
  }
}

template <int kTiles, bool kFp8>
__device__ void compute_share(float* partials, const Partials& plan, int64_t begin, int64_t end,
                              uint32_t ring, int warp, int lane) {
  using R = Ring<kTiles, kFp8>;
  const uint32_t full = ring + R::kStages * R::kStageBytes;
  const uint32_t empty = full + R::kStages * 8;
  const uint32_t lane_weights = static_cast<uint32_t>(warp * (R::kBlockBytes / 8) + lane * 16);
  const uint32_t lane_rows = kStageBlocks * R::kBlockBytes + lane * 16;
  float acc[kTiles][4] = {};
  int stage = 0;
  uint32_t parity = 0;
  for (int64_t block = begin; block < end;) {
    const int count = stage_blocks(block, end, plan.set_blocks);
    const uint32_t base = ring + static_cast<uint32_t>(stage) * R::kStageBytes;
    ptx::barrier_wait(full + stage * 8, parity);
    if (count == kStageBlocks) {
#pragma unroll
      for (int i = 0; i < kStageBlocks; ++i)
        add_block<kTiles, kFp8>(acc, base + lane_weights + i * R::kBlockBytes,
                                base + lane_rows + i * R::kRowBytes);
    } else {
      for (int i = 0; i < count; ++i)
        add_block<kTiles, kFp8>(acc, base + lane_weights + i * R::kBlockBytes,
                                base + lane_rows + i * R::kRowBytes);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty + stage * 8);
    if (++stage == R::kStages) {
      stage = 0;
      parity ^= 1;
    }
    block += count;
    if (block % plan.set_blocks == 0 || block == end) {
      const int set = static_cast<int>((block - 1) / plan.set_blocks);
      const int slot =
          static_cast<int>(blockIdx.x) - plan.share_of(static_cast<int64_t>(set) * plan.set_blocks);
      store_piece<kTiles>(acc,
                          partials + (static_cast<int64_t>(set) * plan.max_pieces + slot) *
                                         (kTiles * 8) * kSetColumns,
                          warp, lane);
    }
  }
}

template <int kTiles, bool kFp8>
__global__ void __launch_bounds__(kThreads)
    product_kernel(const uint8_t* weights, const uint8_t* operand, float* partials, Share share) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  using R = Ring<kTiles, kFp8>;
  const uint32_t ring = ptx::shared_address(shared);
  if (threadIdx.x == 0) {
    const uint32_t full = ring + R::kStages * R::kStageBytes;
    for (int stage = 0; stage < R::kStages; ++stage) {
      ptx::barrier_init(full + stage * 8, 1);
      ptx::barrier_init(full + (R::kStages + stage) * 8, kWarps);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  const int64_t begin = share.total_blocks * blockIdx.x / share.num_shares;
  const int64_t end = share.total_blocks * (blockIdx.x + 1) / share.num_shares;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (warp == kWarps) {
    if (lane == 0) copy_share<kTiles, kFp8>(weights, operand, share, begin, end, ring);
    return;
  }
  wait_for_previous();  // the last product's partial sums have been read
  const Partials plan{nullptr,          kTiles * 8,       share.max_pieces,
                      share.set_blocks, share.num_shares, share.total_blocks};
  compute_share<kTiles, kFp8>(partials, plan, begin, end, ring, warp, lane);
}

template <int kTiles, bool kFp8>
void launch_product(const Stream& stream, const PackedLinear& weight, const uint16_t* operand,
                    float* partials) {
  using R = Ring<kTiles, kFp8>;
  static const bool configured = [] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(product_kernel<kTiles, kFp8>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, R::kBytes));
    return true;
  }();
  (void)configured;
  const Share share{weight.set_blocks, weight.num_shares, weight.total_blocks(), weight.max_pieces};
  launch(stream, product_kernel<kTiles, kFp8>, dim3(static_cast<unsigned>(weight.num_shares)),
         dim3(kThreads), R::kBytes, weight.data.as<uint8_t>(),
         reinterpret_cast<const uint8_t*>(operand), partials, share);
}

template <bool kFp8>
void launch_for_tiles(const Stream& stream, const PackedLinear& weight, const uint16_t* operand,
                      int num_tiles, float* partials) {
  switch (num_tiles) {
    case 1:
      return launch_product<1, kFp8>(stream, weight, operand, partials);
    case 2:
      return launch_product<2, kFp8>(stream, weight, operand, partials);
    case 4:
      return launch_product<4, kFp8>(stream, weight, operand, partials);
    case 8:
      return launch_product<8, kFp8>(stream, weight, operand, partials);
    default:
      check_condition(false, "num_tiles 1, 2, 4 or 8");
  }
}

}  // namespace

void product(const Stream& stream, const PackedLinear& weight, const uint16_t* operand,
             int num_tiles, float* partials) {
  if (weight.type == PackedType::kFp8)
    launch_for_tiles<true>(stream, weight, operand, num_tiles, partials);
  else
    launch_for_tiles<false>(stream, weight, operand, num_tiles, partials);
}

}  // namespace tandem::ops::cuda
