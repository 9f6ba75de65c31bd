// One warp works on one head of one row. A lane holds the pairs that are rotated together: four
// columns of the lower half and the same four of the upper half, once or (head_dim 512) twice.
#include "ops/cuda/attention.cuh"
#include "ops/cuda/head_prep.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/operand.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kWarps = 2;  // per thread block: few, so that a step's heads spread over the device
constexpr int kMaxChunks = 2;

enum Part { kQuery = 0, kKey = 1, kValue = 2 };

// Values [chunk][lower, upper half][column].
struct Head {
  float values[kMaxChunks][2][4];
};

struct Lane {
  int chunk;       // columns 4 * chunk .. + 3 of either half, and those 32 chunks on
  int num_chunks;  // of half a head
  int half;        // head_dim / 2
  __device__ bool has(int i) const { return chunk + 32 * i < num_chunks; }
  __device__ int column(int i, int upper) const { return (chunk + 32 * i) * 4 + upper * half; }
};

__device__ float4 load_bf16x4(const uint16_t* source) {
  const uint2 bits = *reinterpret_cast<const uint2*>(source);
  return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000U),
                     __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000U));
}

__device__ void store_bf16x4(uint16_t* target, const float (&values)[4]) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(values[0], values[1]);
  const __nv_bfloat162 high = __floats2bfloat162_rn(values[2], values[3]);
  *reinterpret_cast<uint2*>(target) = make_uint2(*reinterpret_cast<const uint32_t*>(&low),
                                                 *reinterpret_cast<const uint32_t*>(&high));
}

__device__ void store_head(const Lane& lane, const Head& head, uint16_t* target) {
#pragma unroll
  for (int i = 0; i < kMaxChunks; ++i) {
    if (!lane.has(i)) continue;
    store_bf16x4(target + lane.column(i, 0), head.values[i][0]);
    store_bf16x4(target + lane.column(i, 1), head.values[i][1]);
  }
}

__device__ Head load_head(const HeadPrep& job, const Lane& lane, int row, int first_column,
                          const int (&pieces)[kMaxChunks][2], float scale) {
  Head head = {};
#pragma unroll
  for (int i = 0; i < kMaxChunks; ++i) {
    if (!lane.has(i)) continue;
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const float4 sum =
          load_sum4(job.product, row, first_column + lane.column(i, upper), pieces[i][upper]);
      head.values[i][upper][0] = round_bf16(sum.x * scale);
      head.values[i][upper][1] = round_bf16(sum.y * scale);
      head.values[i][upper][2] = round_bf16(sum.z * scale);
      head.values[i][upper][3] = round_bf16(sum.w * scale);
    }
  }
  return head;
}

// (mean(x^2) + eps)^(-1/2), added up in an order that only head_dim decides.
__device__ float inverse_rms(const Head& head, int head_dim, float eps) {
  float squares = 0.0F;
#pragma unroll
  for (int i = 0; i < kMaxChunks; ++i)
#pragma unroll
    for (int upper = 0; upper < 2; ++upper)
#pragma unroll
      for (int c = 0; c < 4; ++c)
        squares = fmaf(head.values[i][upper][c], head.values[i][upper][c], squares);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) squares += __shfl_xor_sync(0xffffffffU, squares, mask);
  return __fdiv_rn(1.0F, __fsqrt_rn(__fdiv_rn(squares, static_cast<float>(head_dim)) + eps));
}

// Products apart from sums, as the CPU rounds them: no fused multiply-add.
__device__ void rotate(float position, const float4& inv_freq, float (&low)[4], float (&high)[4]) {
  const float frequencies[4] = {inv_freq.x, inv_freq.y, inv_freq.z, inv_freq.w};
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    float sin;
    float cos;
    sincosf(__fmul_rn(position, frequencies[c]), &sin, &cos);
    cos = round_bf16(cos);
    sin = round_bf16(sin);
    const float x = low[c];
    const float y = high[c];
    low[c] = __fsub_rn(__fmul_rn(x, cos), __fmul_rn(y, sin));
    high[c] = __fadd_rn(__fmul_rn(y, cos), __fmul_rn(x, sin));
  }
}

// What does not depend on earlier kernels, fetched while they finish.
struct Constants {
  int pieces[kMaxChunks][2];
  float4 weight[kMaxChunks][2];
  float4 inv_freq[kMaxChunks];
};

__device__ Constants load_constants(const HeadPrep& job, const Lane& lane, int first_column,
                                    const uint16_t* norm) {
  Constants constants = {};
#pragma unroll
  for (int i = 0; i < kMaxChunks; ++i) {
    if (!lane.has(i)) continue;
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const int column = lane.column(i, upper);
      constants.pieces[i][upper] = job.product.num_pieces((first_column + column) / kSetColumns);
      if (norm != nullptr) constants.weight[i][upper] = load_bf16x4(norm + column);
    }
    constants.inv_freq[i] = *reinterpret_cast<const float4*>(job.inv_freq + lane.column(i, 0));
  }
  return constants;
}

// V: the norm without a weight.
__device__ Head plain_norm(const Head& raw, float inverse) {
  Head head;
#pragma unroll
  for (int i = 0; i < kMaxChunks; ++i)
#pragma unroll
    for (int upper = 0; upper < 2; ++upper)
#pragma unroll
      for (int c = 0; c < 4; ++c) head.values[i][upper][c] = raw.values[i][upper][c] * inverse;
  return head;
}

// Q and K: the norm with its weight, then the rotation.
__device__ Head norm_and_rotate(const Head& raw, const Lane& lane, float inverse, float position,
                                const Constants& constants) {
  Head head = {};
#pragma unroll
  for (int i = 0; i < kMaxChunks; ++i) {
    if (!lane.has(i)) continue;
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const float4& w = constants.weight[i][upper];
      const float weights[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int c = 0; c < 4; ++c)
        head.values[i][upper][c] = round_bf16(raw.values[i][upper][c] * inverse * weights[c]);
    }
    rotate(position, constants.inv_freq[i], head.values[i][0], head.values[i][1]);
  }
  return head;
}

// grid (groups of kWarps heads, row)
__global__ void __launch_bounds__(kWarps * 32)
    head_prep_kernel(const HeadPrep job, const Rows rows) {
  allow_next();
  const int unit = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.y);
  const int first_kv = job.num_heads + job.num_kv_heads;
  const Part part = unit < job.num_heads ? kQuery : unit < first_kv ? kKey : kValue;
  const bool exists = unit < first_kv + (job.k_eq_v ? 0 : job.num_kv_heads);
  const Lane lane{static_cast<int>(threadIdx.x) % 32, job.head_dim / 8, job.head_dim / 2};
  const int first_column = unit * job.head_dim;
  Constants constants = {};
  if (exists)
    constants = load_constants(job, lane, first_column,
                               part == kQuery ? job.q_norm
                               : part == kKey ? job.k_norm
                                              : nullptr);
  wait_for_previous();
  if (!exists) return;

  uint16_t* const q = job.q + (static_cast<int64_t>(row) * job.num_heads + unit) * job.head_dim;
  const int sequence = rows.sequences[row];
  if (sequence < 0) {
    if (part == kQuery) store_head(lane, Head{}, q);
    return;
  }
  const int position = rows.positions[row];
  const Head raw =
      load_head(job, lane, row, first_column, constants.pieces, job.scales[static_cast<int>(part)]);
  const float inverse = inverse_rms(raw, job.head_dim, job.eps);
  Head rotated = {};
  if (part != kValue)
    rotated = norm_and_rotate(raw, lane, inverse, static_cast<float>(position), constants);
  if (part == kQuery) return store_head(lane, rotated, q);

  const int kv_head = unit - (part == kKey ? job.num_heads : first_kv);
  const int64_t offset =
      kv_offset(job.places, job.num_kv_heads, job.head_dim, sequence, kv_head, position);
  if (part == kKey) store_head(lane, rotated, job.kv.k + offset);
  if (part == kValue || job.k_eq_v) store_head(lane, plain_norm(raw, inverse), job.kv.v + offset);
}

}  // namespace

void head_prep(const Stream& stream, const Rows& rows, const HeadPrep& job) {
  TANDEM_GPU_CHECK(job.head_dim >= 32 && job.head_dim <= 512 && job.head_dim % 32 == 0);
  TANDEM_GPU_CHECK(job.num_heads > 0 && job.num_kv_heads >= 0);
  TANDEM_GPU_CHECK(rows.num_rows <= job.product.num_rows);
  if (rows.num_rows == 0) return;
  const int units = job.num_heads + (job.k_eq_v ? 1 : 2) * job.num_kv_heads;
  const dim3 grid(static_cast<unsigned>((units + kWarps - 1) / kWarps),
                  static_cast<unsigned>(rows.num_rows));
  launch(stream, head_prep_kernel, grid, dim3(kWarps * 32), 0, job, rows);
}

}  // namespace tandem::ops::cuda
