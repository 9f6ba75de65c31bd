// The product of many rows: 128 features x 64, 128 or 256 rows by one thread block at a time, 128
// inputs a stage.
//
// Two thread blocks form a cluster: neighbouring features, the same rows. Each copies its own
// weights and half of the rows, the latter to both, which halves what the rows cost in L2. One warp
// copies; two warpgroups multiply 64 features each, weights from registers, rows from shared
// memory. Rows are multiplied in parts, two at a time: while a part's products are added to FP32
// registers, those of the next one run, be it of the next stage.
#include "ops/cuda/wide_product.h"

#include <algorithm>

#include "ops/cuda/gelu_join.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/ptx.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kConsumers = 2;  // warpgroups that multiply; one more copies
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kCluster = 2;
constexpr int kStageBlocks = kWideSumInputs / 32;  // packed blocks of 32 inputs in a stage
constexpr int kBlockBytes = 4096;
constexpr int kWeightBytes = kStageBlocks * kBlockBytes;
constexpr int kStagingBytes =
    kConsumers * (256 / 8) * kE4m3TileBytes;  // of results; 2 KB of a warp's

// What depends on the rows of a tile. Products of two parts and the FP32 sums of all rows fit the
// registers together.
template <int kRows>
struct Tile {
  static constexpr int kPartRows = kRows == 64 ? 32 : 64;
  static constexpr int kParts = kRows / kPartRows;
  using Products = float[kPartRows / 2];
  using Sums = Products[kParts];
  static constexpr int kRowBytes = kRows * 128;
  static constexpr int kStageBytes = kWeightBytes + kRowBytes;
  static constexpr int kStages = 192 * 1024 / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + kStagingBytes + 2 * kStages * 8;
};

struct Job {
  const uint8_t* weights;
  const uint8_t* rows;
  int capacity;
  int num_rows;
  int num_row_tiles;
  int num_units;  // of 128 features: a set of the packed weights
  int set_blocks;
  int out_features;
  WideParts parts;
  uint16_t* out;
  WideGelu gelu;
};

// The tiles of a cluster, rows first: those that run together share weights in L2.
struct Walk {
  int item;
  int num_row_tiles;
  __device__ explicit Walk(const Job& job)
      : item(static_cast<int>(blockIdx.x) / kCluster), num_row_tiles(job.num_row_tiles) {}
  __device__ bool done(const Job& job) const {
    return item >= (job.num_units + 1) / kCluster * num_row_tiles;
  }
  __device__ void advance() { item += static_cast<int>(gridDim.x) / kCluster; }
  __device__ int unit(int rank) const { return item / num_row_tiles * kCluster + rank; }
  __device__ int row_tile() const { return item % num_row_tiles; }
};

template <int kRows>
__device__ void copy_tiles(const Job& job, uint32_t ring, int rank) {
  using T = Tile<kRows>;
  const uint32_t full = ring + T::kStages * T::kStageBytes + kStagingBytes;
  const uint32_t empty = full + T::kStages * 8;
  constexpr uint32_t kShare = T::kRowBytes / kCluster;
  RingPlace<T::kStages> place;
  for (Walk walk(job); !walk.done(job); walk.advance()) {
    const int unit = min(walk.unit(rank), job.num_units - 1);
    const int64_t first_row = static_cast<int64_t>(walk.row_tile()) * kRows;
    for (int block = 0; block < job.set_blocks; block += kStageBlocks, place.advance()) {
      const int count = min(kStageBlocks, job.set_blocks - block);
      const uint32_t stage = ring + place.stage * T::kStageBytes;
      const uint32_t barrier = full + place.stage * 8;
      ptx::barrier_wait(empty + place.stage * 8, place.parity ^ 1);
      ptx::barrier_arrive_expect(barrier, count * kBlockBytes + T::kRowBytes);
      const int64_t first_block = static_cast<int64_t>(unit) * job.set_blocks + block;
      ptx::bulk_copy(stage, job.weights + first_block * kBlockBytes, count * kBlockBytes, barrier);
      const int64_t line = block / kStageBlocks * static_cast<int64_t>(job.capacity) + first_row;
      ptx::bulk_copy_to_all(stage + kWeightBytes + rank * kShare,
                            job.rows + line * 128 + rank * kShare, kShare, barrier,
                            (1U << kCluster) - 1);
    }
  }
}

// Products of one tile after the other. Every kWideSumInputs inputs they go to FP32 registers.
template <int kRows>
struct Multiplier {
  using T = Tile<kRows>;
  using Products = typename T::Products;
  using Sums = typename T::Sums;
  static constexpr int kParts = T::kParts;

  uint32_t ring;
  uint32_t own_weights;  // of the first stage
  RingPlace<T::kStages> place = {};

  __device__ explicit Multiplier(uint32_t ring_in)
      : ring(ring_in), own_weights(ring + threadIdx.x / 32 * 512 + threadIdx.x % 32 * 16) {}

  // A stage's weights in registers.
  struct Stage {
    uint4 weights[kStageBlocks];
    uint32_t rows;
    int place;
  };
  __device__ Stage next_stage() {
    Stage stage{{}, ring + place.stage * T::kStageBytes + kWeightBytes, place.stage};
    ptx::barrier_wait(full(place.stage), place.parity);
#pragma unroll
    for (int i = 0; i < kStageBlocks; ++i)
      stage.weights[i] =
          ptx::load_shared(own_weights + place.stage * T::kStageBytes + i * kBlockBytes);
    place.advance();
    return stage;
  }
  __device__ void give_back(int stage) const {
    __syncwarp();
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane < kCluster) ptx::barrier_arrive_at(empty(stage), lane);
  }
  // Starts the products of blocks [begin, end) and a part of the rows.
  __device__ static void start(Products& products, const Stage& stage, int part, int begin = 0,
                               int end = kStageBlocks) {
    ptx::pin(products);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = begin; i < end; ++i)
      ptx::wgmma_e4m3(products, stage.weights[i],
                      ptx::matrix_of(stage.rows + part * (T::kPartRows * 128) + i * 32, 8 * 128),
                      i - begin);
    ptx::warpgroup_commit();
  }
  __device__ static void add(Sums& sums, Products& products, int part) {
    ptx::pin(products);
#pragma unroll
    for (int i = 0; i < T::kPartRows / 2; ++i) sums[part][i] += products[i];
  }
  // Where two parts are under way: adds up all but the last two of a stage, and starts these.
  __device__ static void go_through(Sums& sums, Products (&products)[2], const Stage& stage) {
#pragma unroll
    for (int part = 0; part < kParts - 2; ++part) {
      ptx::warpgroup_wait<1>();
      add(sums, products[part % 2], part);
      start(products[part % 2], stage, part + 2);
    }
  }
  // Adds up the stage whose products are under way, and starts those of the next one.
  __device__ Stage follow(Sums& sums, Products (&products)[2], const Stage& now) {
    go_through(sums, products, now);
    const Stage next = next_stage();
    ptx::warpgroup_wait<1>();
    add(sums, products[0], kParts - 2);
    start(products[0], next, 0);
    ptx::warpgroup_wait<1>();
    give_back(now.place);
    add(sums, products[1], kParts - 1);
    start(products[1], next, 1);
    return next;
  }
  // The same sums as one stage after the other.
  __device__ void whole_stages(Sums& sums, int num_stages) {
    Products products[2];
    Stage stage = next_stage();
    start(products[0], stage, 0);
    start(products[1], stage, 1);
    const auto finish = [&](const Stage& last) {
      go_through(sums, products, last);
      ptx::warpgroup_wait<0>();
      give_back(last.place);
      add(sums, products[0], kParts - 2);
      add(sums, products[1], kParts - 1);
    };
    // Paths that met before the end would make ptxas wait after every product.
#pragma unroll 1
    for (; num_stages > 2; num_stages -= 2) {
      const Stage second = follow(sums, products, stage);
      stage = follow(sums, products, second);
    }
    if (num_stages == 2)
      finish(follow(sums, products, stage));
    else
      finish(stage);
  }
  // The last stage, of fewer blocks: one after the other.
  __device__ void partial_stage(Sums& sums, int blocks) {
    const Stage stage = next_stage();
    Products products;
#pragma unroll
    for (int i = 0; i < kStageBlocks - 1; ++i) {
      if (i >= blocks) break;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        start(products, stage, part, i, i + 1);
        ptx::warpgroup_wait<0>();
        add(sums, products, part);
      }
    }
    give_back(stage.place);
  }

 private:
  __device__ uint32_t full(int stage) const {
    return ring + T::kStages * T::kStageBytes + kStagingBytes + stage * 8;
  }
  __device__ uint32_t empty(int stage) const { return full(T::kStages + stage); }
};

// Those of rows 8 j .. 8 j + 7: feature g of rows 2t and 2t + 1, then feature g + 8 of the same.
template <int kRows>
__device__ inline const float* sums_of_tile(const typename Tile<kRows>::Sums& sums, int j) {
  constexpr int kTiles = Tile<kRows>::kPartRows / 8;
  return &sums[j / kTiles][j % kTiles * 4];
}

// Writes this warp's 16 features of every row, 64 rows at a time through its own 2 KB of `staging`.
template <int kRows>
__device__ void store_rows(const Job& job, const typename Tile<kRows>::Sums& sums,
                           int first_feature, int first_row, uint32_t staging) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float scale = first_feature < job.parts.ends[0]   ? job.parts.scales[0]
                      : first_feature < job.parts.ends[1] ? job.parts.scales[1]
                                                          : job.parts.scales[2];
  const uint32_t write =
      staging + (lane / 16 * 8 + lane % 8) * 32 + (lane / 8 % 2 ^ lane / 4 % 2) * 16;
  const int read_row = lane / 2;
  const uint32_t read = staging + read_row * 32 + (lane % 2 ^ read_row / 4 % 2) * 16;
#pragma unroll
  for (int begin = 0; begin < kRows; begin += 64) {
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* const two = sums_of_tile<kRows>(sums, begin / 8 + j + i / 2) + i % 2 * 2;
        words[i] = bf16x2(two[0] * scale, two[1] * scale);
      }
      ptx::store_transposed(write + j * 256, words[0], words[1], words[2], words[3]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + begin + i * 16 + read_row;
      const uint4 value = ptx::load_shared(read + i * 512);
      if (row < job.num_rows && first_feature < job.out_features)
        *reinterpret_cast<uint4*>(job.out + static_cast<int64_t>(row) * job.out_features +
                                  first_feature + lane % 2 * 8) = value;
    }
    __syncwarp();
  }
}

// Joins gate and up of a unit, each warpgroup for itself. Takes the sums.
template <int kRows>
__device__ void join(const Job& job, typename Tile<kRows>::Sums& sums, int unit, int first_row,
                     uint32_t staging) {
  constexpr int kTiles = kRows / 8;
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  const WideOperand& out = job.gelu.out;
  const uint32_t joined = staging + warpgroup * (kTiles * kE4m3TileBytes);
  join_e4m3<kTiles>(reinterpret_cast<float(&)[kTiles * 4]>(sums),
                    {job.gelu.gate_scale, job.gelu.up_scale}, out.divisor(), joined, 1 + warpgroup);
  // Lanes 2i and 2i + 1 have neighbouring chunks of a row.
  const int thread = ptx::thread_now() % 128;
  const int column = unit * (kSetColumns / 2) + warpgroup * 32 + thread % 2 * 16;
  for (int i = thread / 2; i < kRows; i += 64) {
    const int row = first_row + i;
    const uint4 chunk =
        ptx::load_shared(joined + i / 8 * kE4m3TileBytes + thread % 2 * 128 + i % 8 * 16);
    if (row < job.num_rows)
      *reinterpret_cast<uint4*>(out.data + wide_word(out.capacity, row, column, 0)) = chunk;
  }
}

template <int kRows, bool kGated>
__device__ void multiply_tiles(const Job& job, uint32_t ring, int rank) {
  using T = Tile<kRows>;
  const int warp = static_cast<int>(threadIdx.x) / 32;  // of 16 features
  const uint32_t staging = ring + T::kStages * T::kStageBytes;
  Multiplier<kRows> multiplier(ring);
  for (Walk walk(job); !walk.done(job); walk.advance()) {
    typename T::Sums sums = {};
    const int stages = job.set_blocks / kStageBlocks;
    if (stages > 0) multiplier.whole_stages(sums, stages);
    if (job.set_blocks % kStageBlocks > 0)
      multiplier.partial_stage(sums, job.set_blocks % kStageBlocks);
    const int unit = walk.unit(rank);
    const int first_row = walk.row_tile() * kRows;
    if constexpr (kGated) {
      // A unit too many joins nothing.
      if (unit < job.num_units) join<kRows>(job, sums, unit, first_row, staging);
    } else {
      store_rows<kRows>(job, sums, unit * kSetColumns + warp * 16, first_row,
                        staging + warp * 2048);
    }
  }
}

template <int kRows, bool kGated>
__global__ void __launch_bounds__(kThreads, 1) wide_product_kernel(const Job job) {
  if (!card::kWarpgroupProducts) __trap();  // never launched
  using T = Tile<kRows>;
  extern __shared__ __align__(1024) uint8_t shared[];
  allow_next();
  const uint32_t ring = ptx::shared_address(shared);
  const uint32_t barriers = ring + T::kStages * T::kStageBytes + kStagingBytes;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < T::kStages; ++stage) {
      ptx::barrier_init(barriers + stage * 8, 1);
      ptx::barrier_init(barriers + (T::kStages + stage) * 8, kCluster * kConsumers * 4);
    }
    ptx::fence_barrier_init();
  }
  ptx::cluster_barrier();
  wait_for_previous();
  const int rank = ptx::cluster_rank();
  if (threadIdx.x >= kConsumers * 128) {
    ptx::lower_registers<40>();
    if (threadIdx.x == kConsumers * 128) {
      ptx::fence_async_global();
      copy_tiles<kRows>(job, ring, rank);
    }
    __syncwarp();
  } else {
    ptx::raise_registers<232>();
    multiply_tiles<kRows, kGated>(job, ring, rank);
  }
  ptx::cluster_barrier();  // the other block may still copy to, or arrive at, this one's memory
}

template <int kRows, bool kGated>
void launch_tiles(const Stream& stream, Job job, int num_multiprocessors) {
  using T = Tile<kRows>;
  auto* const kernel = wide_product_kernel<kRows, kGated>;
  static const bool configured = [kernel] {
    TANDEM_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, T::kBytes));
    return true;
  }();
  (void)configured;
  job.num_row_tiles = (job.num_rows + kRows - 1) / kRows;
  const int items = (job.num_units + 1) / kCluster * job.num_row_tiles;
  const int clusters = std::min(items, num_multiprocessors / kCluster);
  launch_clusters(stream, kCluster, kernel, dim3(static_cast<unsigned>(clusters * kCluster)),
                  dim3(kThreads), T::kBytes, job);
}

// The tile with the least work for the busiest multiprocessor; `kFixed`: what a tile costs besides
// its rows, weights above all.
int fastest_tile(const Job& job, const WideTiling& tiling) {
  constexpr int kFixed = 40;
  if (tiling.tile_rows != 0) return tiling.tile_rows;
  int best = 256;
  int64_t least = INT64_MAX;
  for (const int rows : {256, 128, 64}) {
    const int64_t tiles = int64_t{job.num_units} * ((job.num_rows + rows - 1) / rows);
    const int64_t waves = (tiles + tiling.num_multiprocessors - 1) / tiling.num_multiprocessors;
    if (waves * (rows + kFixed) >= least) continue;
    least = waves * (rows + kFixed);
    best = rows;
  }
  return best;
}

template <bool kGated>
void launch_product(const Stream& stream, const Job& job, const WideTiling& tiling) {
  switch (fastest_tile(job, tiling)) {
    case 64:
      return launch_tiles<64, kGated>(stream, job, tiling.num_multiprocessors);
    case 128:
      return launch_tiles<128, kGated>(stream, job, tiling.num_multiprocessors);
    default:
      return launch_tiles<256, kGated>(stream, job, tiling.num_multiprocessors);
  }
}

Job job_of(const PackedLinear& weight, const WideOperand& operand, int num_rows) {
  TANDEM_GPU_CHECK(weight.type == PackedType::kFp8 && has_warpgroup_products());
  TANDEM_GPU_CHECK(num_rows > 0 && num_rows <= operand.capacity);
  TANDEM_GPU_CHECK(operand.capacity % kWideRowStep == 0);
  Job job{};
  job.weights = weight.data.as<uint8_t>();
  job.rows = operand.data;
  job.capacity = operand.capacity;
  job.num_rows = num_rows;
  job.num_units = weight.num_sets;
  job.set_blocks = weight.set_blocks;
  job.out_features = weight.out_features;
  return job;
}

}  // namespace

void wide_product(const Stream& stream, const PackedLinear& weight, const WideOperand& operand,
                  int num_rows, const WideParts& parts, uint16_t* out, const WideTiling& tiling) {
  TANDEM_GPU_CHECK(!weight.gated && weight.out_features % 16 == 0);
  TANDEM_GPU_CHECK(parts.ends[0] % 16 == 0 && parts.ends[1] % 16 == 0);
  Job job = job_of(weight, operand, num_rows);
  job.parts = parts;
  job.out = out;
  launch_product<false>(stream, job, tiling);
}

void wide_gelu_product(const Stream& stream, const PackedLinear& weight, const WideOperand& operand,
                       int num_rows, const WideGelu& gelu, const WideTiling& tiling) {
  TANDEM_GPU_CHECK(weight.gated && weight.out_features % 128 == 0);
  TANDEM_GPU_CHECK(num_rows <= gelu.out.capacity && gelu.out.data != nullptr);
  Job job = job_of(weight, operand, num_rows);
  job.gelu = gelu;
  launch_product<true>(stream, job, tiling);
}

}  // namespace tandem::ops::cuda
