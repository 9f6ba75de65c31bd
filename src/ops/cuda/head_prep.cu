// One warp works on one head of one row, two on heads of more than 256 columns. A lane holds what
// is rotated together: four columns of the lower half and the same four of the upper half.
#include "ops/cuda/attention.cuh"
#include "ops/cuda/head_prep.h"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/operand.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kWarps = 2;  // per thread block: few, so that a step's heads spread over the device

enum Part { kQuery = 0, kKey = 1, kValue = 2 };

// Values [lower, upper half][column].
struct Head {
  float values[2][4];
};

struct Lane {
  int column;   // of the lower half, and half on
  int half;     // head_dim / 2
  bool exists;  // has columns
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
  if (!lane.exists) return;
  store_bf16x4(target + lane.column, head.values[0]);
  store_bf16x4(target + lane.column + lane.half, head.values[1]);
}

// What does not depend on earlier kernels, fetched while they finish.
struct Constants {
  int pieces[2] = {0, 0};
  float4 weight[2] = {};
  float4 inv_freq = {};
};

__device__ Constants load_constants(const HeadPrep& job, const Lane& lane, int first_column,
                                    const uint16_t* norm) {
  Constants constants;
  if (!lane.exists) return constants;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const int column = lane.column + upper * lane.half;
    constants.pieces[upper] = job.product.num_pieces((first_column + column) / kSetColumns);
    if (norm != nullptr) constants.weight[upper] = load_bf16x4(norm + column);
  }
  constants.inv_freq = *reinterpret_cast<const float4*>(job.inv_freq + lane.column);
  return constants;
}

// The sums of a lane's columns on their way; zero pieces where there are no columns.
struct RawPieces {
  Pieces4 halves[2];
};

__device__ RawPieces load_pieces(const HeadPrep& job, const Lane& lane, int row, int first_column,
                                 const int (&pieces)[2]) {
  RawPieces raw;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const int column = lane.exists ? lane.column + upper * lane.half : 0;
    raw.halves[upper] = load_pieces4(job.product, row, first_column + column, pieces[upper]);
  }
  return raw;
}

__device__ Head sum_head(const RawPieces& raw, const int (&pieces)[2], float scale) {
  Head head;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const float4 sum = sum_pieces4(raw.halves[upper], pieces[upper]);
    head.values[upper][0] = round_bf16(sum.x * scale);
    head.values[upper][1] = round_bf16(sum.y * scale);
    head.values[upper][2] = round_bf16(sum.z * scale);
    head.values[upper][3] = round_bf16(sum.w * scale);
  }
  return head;
}

// (mean(x^2) + eps)^(-1/2), added up in an order that only head_dim decides.
template <bool kTwoWarps>
__device__ float inverse_rms(const Head& head, int head_dim, float eps) {
  float squares = 0.0F;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper)
#pragma unroll
    for (int c = 0; c < 4; ++c)
      squares = fmaf(head.values[upper][c], head.values[upper][c], squares);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) squares += __shfl_xor_sync(0xffffffffU, squares, mask);
  if constexpr (kTwoWarps) {
    __shared__ float parts[kWarps];
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = squares;
    __syncthreads();
    squares = parts[0] + parts[1];
  }
  return __fdiv_rn(1.0F, __fsqrt_rn(__fdiv_rn(squares, static_cast<float>(head_dim)) + eps));
}

// Where a row stands, and by how much its heads are rotated there.
struct Place {
  int sequence = -1;
  int64_t offset = 0;  // of keys and values in the cache
  float cos[4];
  float sin[4];
};

__device__ Place load_place(const HeadPrep& job, const Rows& rows, int row, Part part, int kv_head,
                            const float4& inv_freq) {
  Place place;
  place.sequence = rows.sequences[row];
  const int position = rows.positions[row];
  if (part != kQuery && place.sequence >= 0)
    place.offset =
        kv_offset(job.places, job.num_kv_heads, job.head_dim, place.sequence, kv_head, position);
  if (part == kValue) return place;
  const float frequencies[4] = {inv_freq.x, inv_freq.y, inv_freq.z, inv_freq.w};
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    float sin;
    float cos;
    sincosf(__fmul_rn(static_cast<float>(position), frequencies[c]), &sin, &cos);
    place.cos[c] = round_bf16(cos);
    place.sin[c] = round_bf16(sin);
  }
  return place;
}

// V: the norm without a weight.
__device__ Head plain_norm(const Head& raw, float inverse) {
  Head head;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper)
#pragma unroll
    for (int c = 0; c < 4; ++c) head.values[upper][c] = raw.values[upper][c] * inverse;
  return head;
}

// Q and K: the norm with its weight, then the rotation. Products apart from sums, as the CPU rounds
// them: no fused multiply-add.
__device__ Head norm_and_rotate(const Head& raw, float inverse, const Place& place,
                                const Constants& constants) {
  Head head;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const float4& w = constants.weight[upper];
    const float weights[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int c = 0; c < 4; ++c)
      head.values[upper][c] = round_bf16(raw.values[upper][c] * inverse * weights[c]);
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const float x = head.values[0][c];
    const float y = head.values[1][c];
    head.values[0][c] = __fsub_rn(__fmul_rn(x, place.cos[c]), __fmul_rn(y, place.sin[c]));
    head.values[1][c] = __fadd_rn(__fmul_rn(y, place.cos[c]), __fmul_rn(x, place.sin[c]));
  }
  return head;
}

// Unless `live` it is a rehearsal (launch.cuh).
template <bool kTwoWarps>
__device__ void prepare_head(const HeadPrep& job, int row, int unit, Part part, const Lane& lane,
                             const Constants& constants, const Place& place, bool live) {
  const int pieces[2] = {live ? constants.pieces[0] : 0, live ? constants.pieces[1] : 0};
  const RawPieces sums = load_pieces(job, lane, row, unit * job.head_dim, pieces);
  Lane target = lane;
  target.exists = lane.exists && live;
  uint16_t* const q = job.q + (static_cast<int64_t>(row) * job.num_heads + unit) * job.head_dim;
  if (place.sequence < 0) {
    if (part == kQuery) store_head(target, Head{}, q);
    return;
  }
  const Head raw = sum_head(sums, pieces, job.scales[static_cast<int>(part)]);
  const float inverse = inverse_rms<kTwoWarps>(raw, job.head_dim, job.eps);
  if (part == kValue) return store_head(target, plain_norm(raw, inverse), job.kv.v + place.offset);
  const Head rotated = norm_and_rotate(raw, inverse, place, constants);
  if (part == kQuery) return store_head(target, rotated, q);
  store_head(target, rotated, job.kv.k + place.offset);
  if (job.k_eq_v) store_head(target, plain_norm(raw, inverse), job.kv.v + place.offset);
}

// grid (groups of heads, row): kWarps heads, or one with kTwoWarps
template <bool kTwoWarps>
__global__ void __launch_bounds__(kWarps * 32)
    head_prep_kernel(const HeadPrep job, const Rows rows) {
  allow_next();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int unit = static_cast<int>(blockIdx.x) * (kTwoWarps ? 1 : kWarps) + (kTwoWarps ? 0 : warp);
  const int row = static_cast<int>(blockIdx.y);
  const int first_kv = job.num_heads + job.num_kv_heads;
  const Part part = unit < job.num_heads ? kQuery : unit < first_kv ? kKey : kValue;
  if (unit >= first_kv + (job.k_eq_v ? 0 : job.num_kv_heads)) return wait_for_previous();
  const int kv_head = unit - (part == kKey ? job.num_heads : first_kv);
  const int half = job.head_dim / 2;
  const int column = (static_cast<int>(threadIdx.x) % 32 + (kTwoWarps ? warp * 32 : 0)) * 4;
  const Lane lane{column, half, column < half};
  const Constants constants = load_constants(job, lane, unit * job.head_dim,
                                             part == kQuery ? job.q_norm
                                             : part == kKey ? job.k_norm
                                                            : nullptr);
  if (!rows.early_plan) wait_for_previous();
  const Place place = load_place(job, rows, row, part, kv_head, constants.inv_freq);
#pragma unroll 1
  for (int turn = first_turn(rows.early_plan); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live && rows.early_plan) wait_for_previous();
    prepare_head<kTwoWarps>(job, row, unit, part, lane, constants, place, live);
    if constexpr (kTwoWarps) __syncthreads();
  }
}

}  // namespace

void head_prep(const Stream& stream, const Rows& rows, const HeadPrep& job) {
  TANDEM_GPU_CHECK(job.head_dim >= 32 && job.head_dim <= 512 && job.head_dim % 32 == 0);
  TANDEM_GPU_CHECK(job.num_heads > 0 && job.num_kv_heads >= 0);
  TANDEM_GPU_CHECK(rows.num_rows <= job.product.num_rows);
  if (rows.num_rows == 0) return;
  const bool two_warps = job.head_dim > 256;
  const int units = job.num_heads + (job.k_eq_v ? 1 : 2) * job.num_kv_heads;
  const int blocks = two_warps ? units : (units + kWarps - 1) / kWarps;
  launch(stream, two_warps ? head_prep_kernel<true> : head_prep_kernel<false>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows.num_rows)),
         dim3(kWarps * 32), 0, job, rows);
}

}  // namespace tandem::ops::cuda
