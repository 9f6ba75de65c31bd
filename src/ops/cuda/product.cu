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
  static constexpr int kBudget = 108 * 1024;
  static constexpr int kStages = kBudget / kStageBytes > 3 ? kBudget / kStageBytes : 3;
  static constexpr int kBytes = kStages * kStageBytes + 2 * kStages * 8;
};

// Walks over the blocks [begin, end) of a share, a stage at a time: up to a multiple of
// kStageBlocks within the set, so that a stage is one run of weights and one run of the operand.
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
  __device__ bool ends_set() const { return within + count == set_blocks; }
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

template <int kTiles, bool kFp8>
__device__ void copy_share(const uint8_t* weights, const uint8_t* operand, int set_blocks,
                           int begin, int end, uint32_t ring) {
  using R = Ring<kTiles, kFp8>;
  const uint32_t full = ring + R::kStages * R::kStageBytes;
  const uint32_t empty = full + R::kStages * 8;
  const uint64_t policy = ptx::evict_first_policy();
  const auto copy_weights = [&](int stage, const Walk& walk) {
    ptx::barrier_arrive_expect(full + stage * 8, walk.count * (R::kBlockBytes + R::kRowBytes));
    ptx::bulk_copy(ring + stage * R::kStageBytes,
                   weights + static_cast<int64_t>(walk.block) * R::kBlockBytes,
                   walk.count * R::kBlockBytes, full + stage * 8, policy);
  };
  const auto copy_rows = [&](int stage, const Walk& walk) {
    ptx::bulk_copy(ring + stage * R::kStageBytes + kStageBlocks * R::kBlockBytes,
                   operand + static_cast<int64_t>(walk.within) * R::kRowBytes,
                   walk.count * R::kRowBytes, full + stage * 8);
  };
  Walk walk(begin, end, set_blocks);
  Walk rows = walk;
  int filled = 0;
  for (; filled < R::kStages && !walk.done(); ++filled, walk.advance()) copy_weights(filled, walk);
  wait_for_previous();
  ptx::fence_async_global();
  for (int stage = 0; stage < filled; ++stage, rows.advance()) copy_rows(stage, rows);
  for (RingPlace<R::kStages> place; !walk.done(); walk.advance(), place.advance()) {
    ptx::barrier_wait(empty + place.stage * 8, place.parity);
    copy_weights(place.stage, walk);
    copy_rows(place.stage, walk);
  }
}

// The 16 features x 32 inputs of one lane and block: {g, g + 8} x four pairs of inputs.
template <bool kFp8>
struct Fragment {
  uint4 words[kFp8 ? 1 : 2];

  __device__ void load(uint32_t address) {
    words[0] = ptx::load_shared(address);
    if constexpr (!kFp8) words[1] = ptx::load_shared(address + 512);
  }
};

template <bool kFp8>
__device__ inline void unpack(const Fragment<kFp8>& fragment, uint32_t (&a)[8]) {
  if constexpr (kFp8) {
    const uint4 w = fragment.words[0];
    a[0] = ptx::e4m3x2_to_half2(w.x);
    a[1] = ptx::e4m3x2_to_half2(w.z);
    a[2] = ptx::e4m3x2_to_half2(w.x >> 16);
    a[3] = ptx::e4m3x2_to_half2(w.z >> 16);
    a[4] = ptx::e4m3x2_to_half2(w.y);
    a[5] = ptx::e4m3x2_to_half2(w.w);
    a[6] = ptx::e4m3x2_to_half2(w.y >> 16);
    a[7] = ptx::e4m3x2_to_half2(w.w >> 16);
  } else {
    a[0] = fragment.words[0].x, a[1] = fragment.words[0].y;
    a[2] = fragment.words[0].z, a[3] = fragment.words[0].w;
    a[4] = fragment.words[1].x, a[5] = fragment.words[1].y;
    a[6] = fragment.words[1].z, a[7] = fragment.words[1].w;
  }
}

template <bool kFp8>
__device__ inline void multiply(float (&acc)[4], const uint32_t (&a)[8], const uint4& b) {
  if constexpr (kFp8) {
    ptx::mma_f16(acc, a[0], a[1], a[2], a[3], b.x, b.y);
    ptx::mma_f16(acc, a[4], a[5], a[6], a[7], b.z, b.w);
  } else {
    ptx::mma_bf16(acc, a[0], a[1], a[2], a[3], b.x, b.y);
    ptx::mma_bf16(acc, a[4], a[5], a[6], a[7], b.z, b.w);
  }
}

// acc += the products of `kCount` blocks of a stage; every load is issued before the first use.
template <int kTiles, bool kFp8, int kCount>
__device__ inline void add_blocks(float (&acc)[kTiles][4], uint32_t weights, uint32_t rows) {
  using R = Ring<kTiles, kFp8>;
  constexpr int kAhead = kTiles <= 2 ? kTiles : 1;  // tiles of a block loaded before its products
  Fragment<kFp8> fragments[kCount];
  uint4 b[kCount][kAhead];
#pragma unroll
  for (int i = 0; i < kCount; ++i) fragments[i].load(weights + i * R::kBlockBytes);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
#pragma unroll
    for (int tile = 0; tile < kAhead; ++tile)
      b[i][tile] = ptx::load_shared(rows + i * R::kRowBytes + tile * 512);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    uint32_t a[8];
    unpack<kFp8>(fragments[i], a);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (tile >= kAhead) b[i][0] = ptx::load_shared(rows + i * R::kRowBytes + tile * 512);
      multiply<kFp8>(acc[tile], a, b[i][tile < kAhead ? tile : 0]);
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
__device__ void compute_share(float* partials, const Partials& plan, int begin, int end,
                              uint32_t ring, int warp, int lane) {
  using R = Ring<kTiles, kFp8>;
  const uint32_t full = ring + R::kStages * R::kStageBytes;
  const uint32_t empty = full + R::kStages * 8;
  const uint32_t lane_weights = static_cast<uint32_t>(warp * (R::kBlockBytes / 8) + lane * 16);
  const uint32_t lane_rows = static_cast<uint32_t>(kStageBlocks * R::kBlockBytes + lane * 16);
  float acc[kTiles][4] = {};
  int set = begin / plan.set_blocks;
  RingPlace<R::kStages> place;
  for (Walk walk(begin, end, plan.set_blocks); !walk.done(); walk.advance(), place.advance()) {
    const uint32_t base = ring + place.stage * R::kStageBytes;
    ptx::barrier_wait(full + place.stage * 8, place.parity);
    if (walk.count == kStageBlocks) {
      add_blocks<kTiles, kFp8, kStageBlocks>(acc, base + lane_weights, base + lane_rows);
    } else {
      for (int i = 0; i < walk.count; ++i)
        add_blocks<kTiles, kFp8, 1>(acc, base + lane_weights + i * R::kBlockBytes,
                                    base + lane_rows + i * R::kRowBytes);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty + place.stage * 8);
    if (!walk.ends_set() && walk.block + walk.count < end) continue;
    const int slot = static_cast<int>(blockIdx.x) - plan.share_of(set * plan.set_blocks);
    const int64_t piece = static_cast<int64_t>(set) * plan.max_pieces + slot;
    store_piece<kTiles>(acc, partials + piece * (kTiles * 8 * kSetColumns), warp, lane);
    ++set;
  }
}

template <int kTiles, bool kFp8>
__global__ void __launch_bounds__(kThreads)
    product_kernel(const uint8_t* weights, const uint8_t* operand, float* partials, Partials plan) {
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
  const int begin = plan.share_begin(static_cast<int>(blockIdx.x));
  const int end = plan.share_begin(static_cast<int>(blockIdx.x) + 1);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (warp == kWarps) {
    if (lane == 0) copy_share<kTiles, kFp8>(weights, operand, plan.set_blocks, begin, end, ring);
    return;
  }
  wait_for_previous();  // the last product's partial sums have been read
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
  launch(stream, product_kernel<kTiles, kFp8>, dim3(static_cast<unsigned>(weight.num_shares)),
         dim3(kThreads), R::kBytes, weight.data.as<uint8_t>(),
         reinterpret_cast<const uint8_t*>(operand), partials, weight.partials(nullptr, kTiles * 8));
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
