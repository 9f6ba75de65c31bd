// The product of many rows: 128 features x 64, 128 or 256 rows by one thread block at a time, 128
// inputs a stage.
//
// Two thread blocks form a cluster: neighbouring features, the same rows. Each copies its own
// weights and half of the rows, the latter to both, which halves what the rows cost in L2. One warp
// copies; two warpgroups multiply 64 features each, weights from registers, rows from shared
// memory. While one adds a stage's sums to its FP32 registers, the other's products run.
#include "ops/cuda/wide_product.h"

#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/row_math.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kConsumers = 2;  // warpgroups that multiply; one more copies
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kCluster = 2;
constexpr int kStageBlocks = kWideSumInputs / 32;  // packed blocks of 32 inputs in a stage
constexpr int kBlockBytes = 4096;
constexpr int kWeightBytes = kStageBlocks * kBlockBytes;
constexpr int kStagingBytes = 32 * 1024;  // of results

// What depends on the rows of a tile. A product is at most 128 rows wide: its sums and the FP32
// sums of all rows fit the registers together.
template <int kRows>
struct Tile {
  static constexpr int kParts = kRows == 256 ? 2 : 1;
  static constexpr int kWidth = kRows / kParts;
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

// sums += one stage: `kCount` blocks from `weights` (of this warp's 16 features) on.
template <int kRows, int kCount>
__device__ inline void add_stage(float (&sums)[Tile<kRows>::kParts][Tile<kRows>::kWidth / 2],
                                 uint32_t weights, uint32_t rows) {
  using T = Tile<kRows>;
  uint4 a[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) a[i] = ptx::load_shared(weights + i * kBlockBytes);
#pragma unroll
  for (int part = 0; part < T::kParts; ++part) {
    float stage[T::kWidth / 2];
    ptx::pin(stage);
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      ptx::wgmma_e4m3(stage, a[i], ptx::matrix_of(rows + part * T::kWidth * 128 + i * 32, 8 * 128),
                      i);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<0>();
    ptx::pin(stage);
#pragma unroll
    for (int i = 0; i < T::kWidth / 2; ++i) sums[part][i] += stage[i];
  }
}

// The sum of columns 8 j + 2t (c 0, 2), + 1 (c 1, 3) of rows g (c 0, 1) and g + 8.
template <int kRows>
__device__ inline float& sum_at(float (&sums)[Tile<kRows>::kParts][Tile<kRows>::kWidth / 2], int j,
                                int c) {
  constexpr int kTiles = Tile<kRows>::kWidth / 8;
  return sums[j / kTiles][j % kTiles * 4 + c];
}

// Writes this warp's 16 features of every row, 64 rows at a time through its own 2 KB of `staging`.
template <int kRows>
__device__ void store_rows(const Job& job,
                           float (&sums)[Tile<kRows>::kParts][Tile<kRows>::kWidth / 2],
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
        const int tile = begin / 8 + j + i / 2;
        words[i] = bf16x2(sum_at<kRows>(sums, tile, i % 2 * 2) * scale,
                          sum_at<kRows>(sums, tile, i % 2 * 2 + 1) * scale);
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

// Joins gate and up of half of the rows: those of tiles kFirst on in this warpgroup's own sums and
// in what the other one has handed over.
template <int kRows, bool kIsGate>
__device__ void join(const Job& job, float (&sums)[Tile<kRows>::kParts][Tile<kRows>::kWidth / 2],
                     uint32_t staging, int column, int first_row) {
  constexpr int kTiles = kRows / 16;  // of 8 rows, in half of the rows
  const uint32_t received = staging + (kIsGate ? kStagingBytes / 2 : 0) + threadIdx.x % 128 * 16;
  constexpr int kFirst = kIsGate ? 0 : kTiles;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float own_scale = kIsGate ? job.gelu.gate_scale : job.gelu.up_scale;
  const WideOperand& out = job.gelu.out;
  const float inverse = __frcp_rn(out.input_scale);
#pragma unroll
  for (int j = 0; j < kTiles; j += 2) {
    const uint4 other = ptx::load_shared(received + j / 2 * 2048);
    const uint32_t theirs[4] = {other.x, other.y, other.z, other.w};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      uint32_t turned[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t ours = bf16x2(sum_at<kRows>(sums, kFirst + j + i, half * 2) * own_scale,
                                     sum_at<kRows>(sums, kFirst + j + i, half * 2 + 1) * own_scale);
        const uint32_t gate = kIsGate ? ours : theirs[i * 2 + half];
        const uint32_t up = kIsGate ? theirs[i * 2 + half] : ours;
        const uint32_t active = bf16x2(gelu_tanh(low_bf16(gate)), gelu_tanh(high_bf16(gate)));
        turned[half] = ptx::transpose8x8(
            bf16x2(low_bf16(active) * low_bf16(up), high_bf16(active) * high_bf16(up)));
      }
      const int row = first_row + (kFirst + j + i) * 8 + lane / 4;
      const uint32_t low =
          e4m3x2(low_bf16(turned[0]), high_bf16(turned[0]), out.input_scale, inverse);
      const uint32_t high =
          e4m3x2(low_bf16(turned[1]), high_bf16(turned[1]), out.input_scale, inverse);
      if (row < job.num_rows)
        *reinterpret_cast<uint32_t*>(out.data + wide_word(out.capacity, row, column, lane % 4)) =
            low | (high << 16);
    }
  }
}

// Hands the half of the rows that the other warpgroup joins to it.
template <int kRows, bool kIsGate>
__device__ void hand_over(const Job& job,
                          float (&sums)[Tile<kRows>::kParts][Tile<kRows>::kWidth / 2],
                          uint32_t staging) {
  constexpr int kTiles = kRows / 16;
  constexpr int kGiven = kIsGate ? kTiles : 0;
  const uint32_t thread = threadIdx.x % 128 * 16;
  const uint32_t sent = staging + (kIsGate ? 0 : kStagingBytes / 2) + thread;
  const float scale = kIsGate ? job.gelu.gate_scale : job.gelu.up_scale;
#pragma unroll
  for (int j = 0; j < kTiles; j += 2) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      words[i] = bf16x2(sum_at<kRows>(sums, kGiven + j + i / 2, i % 2 * 2) * scale,
                        sum_at<kRows>(sums, kGiven + j + i / 2, i % 2 * 2 + 1) * scale);
    ptx::store_shared(sent + j / 2 * 2048, make_uint4(words[0], words[1], words[2], words[3]));
  }
}

template <int kRows, bool kGated>
__device__ void multiply_tiles(const Job& job, uint32_t ring, int rank) {
  using T = Tile<kRows>;
  const uint32_t staging = ring + T::kStages * T::kStageBytes;
  const uint32_t full = staging + kStagingBytes;
  const uint32_t empty = full + T::kStages * 8;
  const int warp = static_cast<int>(threadIdx.x) / 32;  // of 16 features
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t own_weights = static_cast<uint32_t>(warp * 512 + lane * 16);
  float sums[T::kParts][T::kWidth / 2];
  RingPlace<T::kStages> place;
  for (Walk walk(job); !walk.done(job); walk.advance()) {
#pragma unroll
    for (auto& part : sums)
#pragma unroll
      for (float& sum : part) sum = 0.0F;
    for (int block = 0; block < job.set_blocks; block += kStageBlocks, place.advance()) {
      const uint32_t stage = ring + place.stage * T::kStageBytes;
      ptx::barrier_wait(full + place.stage * 8, place.parity);
      const int count = min(kStageBlocks, job.set_blocks - block);
      if (count == kStageBlocks) {
        add_stage<kRows, kStageBlocks>(sums, stage + own_weights, stage + kWeightBytes);
      } else {
        for (int i = 0; i < count; ++i)
          add_stage<kRows, 1>(sums, stage + own_weights + i * kBlockBytes,
                              stage + kWeightBytes + i * 32);
      }
      __syncwarp();
      if (lane < kCluster) ptx::barrier_arrive_at(empty + place.stage * 8, lane);
    }
    const int unit = walk.unit(rank);
    const int first_row = walk.row_tile() * kRows;
    if constexpr (kGated) {
      const int column = unit * 64 + warp % 4 * 16;
      // A unit too many joins rows that do not exist.
      const int row = unit < job.num_units ? first_row : job.num_rows;
      ptx::named_barrier(1, kConsumers * 128);  // what was handed over before has been read
      if (warp < 4)
        hand_over<kRows, true>(job, sums, staging);
      else
        hand_over<kRows, false>(job, sums, staging);
      ptx::named_barrier(1, kConsumers * 128);
      if (warp < 4)
        join<kRows, true>(job, sums, staging, column, row);
      else
        join<kRows, false>(job, sums, staging, column, row);
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
