#include "ops/cuda/packed_linear.h"

#include <algorithm>

#include "ops/cuda/launch.cuh"
#include "ops/cuda/operand.cuh"
#include "ops/cuda/row_math.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kThreads = 256;
// Fewer blocks than this are not worth a thread block of their own.
constexpr int kMinShareBlocks = 4;
// Every reader of a sum adds its pieces up: idle multiprocessors are worth it that there are no
// more than this, while a thread block's share stays small.
constexpr int kFewPieces = Pieces4::kTogether;
constexpr int64_t kMostShareBytes = 160 * 1024;

struct PackJob {
  uint8_t* data;
  const uint8_t* rows;
  int first_feature;
  int first_up;  // feature; -1 if the weight is not gated
  int num_rows;
  int in_features;
  int set_blocks;
  int64_t num_units;
};

// One thread packs what a lane has of eight features: 8 of its 16 bytes, two words. A unit is
// (eight features, block, half, lane); FP8 has one half, BF16 two.
template <bool kFp8>
__global__ void pack_kernel(const PackJob job) {
  constexpr int kHalves = kFp8 ? 1 : 2;
  constexpr int kBytes = kFp8 ? 1 : 2;
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (unit >= job.num_units) return;
  const int lane = static_cast<int>(unit % 32);
  const int half = static_cast<int>(unit / 32 % kHalves);
  const int block = static_cast<int>(unit / (32 * kHalves) % job.set_blocks);
  const int eight = static_cast<int>(unit / (32 * kHalves) / job.set_blocks);
  const int row = eight * 8 + lane / 4;
  const uint8_t* const source = job.rows + (static_cast<int64_t>(row) * job.in_features +
                                            block * 32 + half * 16 + lane % 4 * 2) *
                                               kBytes;
  const auto pair_at = [&](int columns_on) {
    return row < job.num_rows ? *reinterpret_cast<const uint16_t*>(source + columns_on) : 0U;
  };
  uint32_t words[2] = {};
  if constexpr (kFp8) {
    words[0] = pair_at(0) | pair_at(8) << 16;
    words[1] = pair_at(16) | pair_at(24) << 16;
  } else if (row < job.num_rows) {
    words[0] = *reinterpret_cast<const uint32_t*>(source);
    words[1] = *reinterpret_cast<const uint32_t*>(source + 8 * kBytes);
  }
  int feature = job.first_feature + eight * 8;
  if (job.first_up >= 0) {
    const bool up = feature >= job.first_up;
    feature = gated_feature(up ? feature - job.first_up : feature, up);
  }
  const int group = feature / 16;
  const int64_t target =
      (((static_cast<int64_t>(group / 8) * job.set_blocks + block) * 8 + group % 8) * kHalves +
       half) *
          32 +
      lane;
  auto* const lane_words = reinterpret_cast<uint32_t*>(job.data) + target * 4 + feature % 16 / 8;
  lane_words[0] = words[0];
  lane_words[2] = words[1];
}

constexpr float kLargestE4M3 = 448.0F;

// The largest magnitude of a row, NaN where something is not finite. A warp for each row.
__device__ float largest_of(const uint16_t* row, int in_features) {
  float largest = 0.0F;
  bool finite = true;
  for (int column = static_cast<int>(threadIdx.x) % 32 * 2; column < in_features; column += 64) {
    const float2 x = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(row + column));
    finite = finite && isfinite(x.x) && isfinite(x.y);
    largest = fmaxf(largest, fmaxf(fabsf(x.x), fabsf(x.y)));
  }
  largest = __uint_as_float(__reduce_max_sync(0xffffffffU, __float_as_uint(largest)));
  return __all_sync(0xffffffffU, finite) != 0 ? largest : __int_as_float(0x7fc00000);
}

// A warp for each row.
__global__ void __launch_bounds__(kThreads)
    round_rows_kernel(const uint16_t* rows, int num_rows, int in_features, uint8_t* codes,
                      float* scales) {
  const int row = static_cast<int>((blockIdx.x * kThreads + threadIdx.x) / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= num_rows) return;
  const int64_t begin = static_cast<int64_t>(row) * in_features;
  const auto pair_at = [&](int column) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(rows + begin + column));
  };
  const float largest = largest_of(rows + begin, in_features);
  const float scale = largest == 0.0F ? 1.0F : largest / kLargestE4M3;
  if (lane == 0) scales[row] = scale;
  for (int column = lane * 2; column < in_features; column += 64) {
    const float2 x = pair_at(column);
    *reinterpret_cast<uint16_t*>(codes + begin + column) =
        __nv_cvt_float2_to_fp8x2(make_float2(x.x / scale, x.y / scale), __NV_SATFINITE, __NV_E4M3);
  }
}

constexpr float kLargestInteger = 127.0F;
// With a larger error a weight is so large that logits of long rows could overflow: no bound.
constexpr float kMostIntegerError = 1e14F;

// Sign and magnitude of an integer.
__device__ uint32_t integer_code(float x, float scale) {
  const float rounded = fminf(rintf(fabsf(x) / scale), kLargestInteger);
  return (__float_as_uint(x) >> 31 << 7) | static_cast<uint32_t>(rounded);
}

// A warp for each row.
__global__ void __launch_bounds__(kThreads)
    round_to_integers_kernel(const uint16_t* rows, int num_rows, int in_features, uint8_t* codes,
                             float* scales, float* errors) {
  const int row = static_cast<int>((blockIdx.x * kThreads + threadIdx.x) / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= num_rows) return;
  const int64_t begin = static_cast<int64_t>(row) * in_features;
  const float largest = largest_of(rows + begin, in_features);
  const float scale = largest == 0.0F ? 1.0F : largest / kLargestInteger;
  float squares = 0.0F;
  float lost = 0.0F;
  for (int column = lane * 2; column < in_features; column += 64) {
    const float2 x =
        __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(rows + begin + column));
    const uint32_t low = integer_code(x.x, scale);
    const uint32_t high = integer_code(x.y, scale);
    *reinterpret_cast<uint16_t*>(codes + begin + column) = static_cast<uint16_t>(low | high << 8);
    squares += x.x * x.x + x.y * x.y;
    // Signs agree.
    const float of_low = fabsf(x.x) - scale * static_cast<float>(low & 127);
    const float of_high = fabsf(x.y) - scale * static_cast<float>(high & 127);
    lost += of_low * of_low + of_high * of_high;
  }
  const float norm = sqrtf(warp_sum(squares));
  const float error = sqrtf(warp_sum(lost));
  if (lane != 0) return;
  scales[row] = scale;
  // Squares below FP32's range add up to less than the last term.
  const float bound = error * 1.002F + norm * 0x1p-11F + 1e-18F;
  errors[row] = bound < kMostIntegerError ? bound : __int_as_float(0x7f800000);
}

__device__ uint32_t mix(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return static_cast<uint32_t>(x >> 32);
}

// E4M3: magnitudes 2^-4 .. 1.75 before the scale. BF16: +-[2^-6, 2^-5).
template <bool kFp8>
__global__ void fill_kernel(uint32_t* data, int64_t num_words, uint64_t seed) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < num_words;
       i += stride) {
    const uint32_t bits = mix(seed ^ static_cast<uint64_t>(i));
    if constexpr (kFp8) {
      // Exponent 3..6 of 15, any mantissa and sign.
      data[i] = (bits & 0x9F9F9F9FU) + 0x18181818U;
    } else {
      data[i] = (bits & 0x807F807FU) | 0x3C803C80U;
    }
  }
}

__global__ void rows_to_operand_kernel(const uint16_t* rows, int num_rows, int in_features,
                                       Operand operand) {
  allow_next();
  wait_for_previous();
  const int pair = blockIdx.x * kThreads + threadIdx.x;
  const int row = blockIdx.y;
  if (pair * 2 >= in_features) return;
  float2 x = make_float2(0.0F, 0.0F);
  if (row < num_rows)
    x = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(
        rows + static_cast<int64_t>(row) * in_features + pair * 2));
  store_operand(operand, row, pair * 2, x.x, x.y);
}

unsigned blocks_for(int64_t items) {
  return static_cast<unsigned>((items + kThreads - 1) / kThreads);
}

// Fewer shares, each a whole part of one set or whole sets, if the largest grows by an eighth at
// most: no thread block leaves more than one piece of a sum, and gate and up need no exchange. 120
// multiprocessors read as fast as 132 (measured; docs/gpu-tried.md).
int whole_shares(const PackedLinear& weight, int most) {
  const int64_t largest = (weight.total_blocks() + most - 1) / most;
  const auto fits = [&](int64_t blocks) { return blocks * 8 <= largest * 9; };
  const int parts = most / weight.num_sets;  // of a set
  if (parts > 0)
    return fits((weight.set_blocks + parts - 1) / parts) ? parts * weight.num_sets : most;
  const int sets = (weight.num_sets + most - 1) / most;  // of a share
  const bool whole = weight.num_sets % sets == 0 && fits(int64_t{sets} * weight.set_blocks);
  return whole ? weight.num_sets / sets : most;
}

void divide(PackedLinear& weight, int most_shares) {
  TANDEM_GPU_CHECK(weight.num_sets > 0 && weight.in_features > 0 && weight.in_features % 32 == 0);
  weight.set_blocks = weight.in_features / 32;
  const int in_few_pieces = kFewPieces * weight.num_sets;
  if (in_few_pieces < most_shares && weight.size_bytes() / in_few_pieces <= kMostShareBytes)
    most_shares = in_few_pieces;
  most_shares = whole_shares(weight, most_shares);
  weight.num_shares = static_cast<int>(
      std::clamp<int64_t>(weight.total_blocks() / kMinShareBlocks, 1, most_shares));
  TANDEM_GPU_CHECK(weight.total_blocks() * (weight.num_shares + 1) < (int64_t{1} << 32));
  const Partials plan = weight.partials(nullptr, 8);
  for (int set = 0; set < weight.num_sets; ++set)
    weight.max_pieces = std::max(weight.max_pieces, plan.num_pieces(set));
}

void take_memory(PackedLinear& weight) {
  weight.data = DeviceBuffer(static_cast<size_t>(weight.size_bytes()));
  if (weight.out_features == weight.num_sets * kSetColumns) return;
  TANDEM_CUDA_CHECK(cudaMemset(weight.data.data(), 0, weight.data.size_bytes()));
  // Whoever packs does so on a stream of their own, which does not wait for this one.
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

}  // namespace

PackedLinear plan_packed_linear(PackedType type, int out_features, int in_features,
                                int num_multiprocessors) {
  PackedLinear weight;
  weight.type = type;
  weight.out_features = out_features;
  weight.in_features = in_features;
  weight.num_sets = (out_features + kSetColumns - 1) / kSetColumns;
  divide(weight, num_multiprocessors);
  return weight;
}

PackedLinear make_packed_linear(PackedType type, int out_features, int in_features,
                                int num_multiprocessors) {
  PackedLinear weight = plan_packed_linear(type, out_features, in_features, num_multiprocessors);
  take_memory(weight);
  return weight;
}

PackedLinear make_gated_linear(PackedType type, int intermediate, int in_features,
                               int num_multiprocessors) {
  TANDEM_GPU_CHECK(intermediate % 16 == 0 &&
                   (type == PackedType::kFp8 || type == PackedType::kBF16));
  constexpr int kHalf = kSetColumns / 2;
  PackedLinear weight;
  weight.type = type;
  weight.gated = true;
  weight.out_features = 2 * intermediate;
  weight.in_features = in_features;
  weight.num_sets = (intermediate + kHalf - 1) / kHalf;
  // With nearly as many sets as multiprocessors, whole sets are worth some idle ones:
  // gelu_product() takes sets of two pieces at most.
  const int shares = std::min(num_multiprocessors, weight.num_sets);
  divide(weight, shares * 10 >= num_multiprocessors * 9 ? shares : num_multiprocessors);
  take_memory(weight);
  return weight;
}

void pack_rows(const Stream& stream, const PackedLinear& weight, const void* rows,
               int first_feature, int num_rows) {
  TANDEM_GPU_CHECK(first_feature % 16 == 0 && first_feature + num_rows <= weight.out_features);
  const int halves = weight.type == PackedType::kBF16 ? 2 : 1;
  const int64_t num_units =
      static_cast<int64_t>((num_rows + 7) / 8) * weight.set_blocks * halves * 32;
  const auto kernel = weight.type == PackedType::kBF16 ? pack_kernel<false> : pack_kernel<true>;
  kernel<<<blocks_for(num_units), kThreads, 0, stream.handle>>>(
      PackJob{.data = weight.data.as<uint8_t>(),
              .rows = static_cast<const uint8_t*>(rows),
              .first_feature = first_feature,
              .first_up = weight.gated ? weight.out_features / 2 : -1,
              .num_rows = num_rows,
              .in_features = weight.in_features,
              .set_blocks = weight.set_blocks,
              .num_units = num_units});
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void round_rows(const Stream& stream, const void* rows, int num_rows, int in_features,
                uint8_t* codes, float* scales) {
  TANDEM_GPU_CHECK(in_features % 2 == 0);
  round_rows_kernel<<<blocks_for(int64_t{32} * num_rows), kThreads, 0, stream.handle>>>(
      static_cast<const uint16_t*>(rows), num_rows, in_features, codes, scales);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void round_to_integers(const Stream& stream, const void* rows, int num_rows, int in_features,
                       uint8_t* codes, float* scales, float* errors) {
  TANDEM_GPU_CHECK(in_features % 2 == 0);
  round_to_integers_kernel<<<blocks_for(int64_t{32} * num_rows), kThreads, 0, stream.handle>>>(
      static_cast<const uint16_t*>(rows), num_rows, in_features, codes, scales, errors);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void fill_random(const Stream& stream, const PackedLinear& weight, uint64_t seed) {
  const int64_t num_words = weight.size_bytes() / 4;
  const auto kernel = weight.type == PackedType::kBF16 ? fill_kernel<false> : fill_kernel<true>;
  kernel<<<std::min(blocks_for(num_words), 4096U), kThreads, 0, stream.handle>>>(
      weight.data.as<uint32_t>(), num_words, seed);
  TANDEM_CUDA_CHECK(cudaGetLastError());
}

void rows_to_operand(const Stream& stream, const uint16_t* rows, int num_rows, int in_features,
                     float input_scale, void* operand, int num_tiles) {
  TANDEM_GPU_CHECK(in_features % 32 == 0 && num_rows <= 8 * num_tiles);
  launch(stream, rows_to_operand_kernel,
         dim3(blocks_for(in_features / 2), static_cast<unsigned>(8 * num_tiles)), dim3(kThreads), 0,
         rows, num_rows, in_features, Operand{operand, num_tiles, input_scale});
}

}  // namespace tandem::ops::cuda
