// One warp works on one head of one row, two on heads of more than 256 columns (head_norm.cuh).
#include "ops/cuda/attention.cuh"
#include "ops/cuda/head_norm.cuh"
#include "ops/cuda/head_prep.h"
#include "ops/cuda/kv_store.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

using head_norm::Constants;
using head_norm::Head;
using head_norm::Lane;

constexpr int kWarps = 2;  // per thread block: few, so that a step's heads spread over the device

enum Part { kQuery = 0, kKey = 1, kValue = 2 };

__device__ void store_head(const Lane& lane, const Head& head, uint16_t* target) {
  if (!lane.exists) return;
  *reinterpret_cast<uint2*>(target + lane.column) = head_norm::pack_bf16x4(head.values[0]);
  *reinterpret_cast<uint2*>(target + lane.column + lane.half) =
      head_norm::pack_bf16x4(head.values[1]);
}

// Keys, or values, at an element of a layer's.
template <bool kFp8>
__device__ void store_kv(const Lane& lane, const Head& head, void* rows, int64_t offset,
                         float scale) {
  if constexpr (!kFp8) return store_head(lane, head, bf16_rows(rows) + offset);
  if (!lane.exists) return;
  const KvScale by = kv_scale(scale);
  auto* const target = static_cast<uint8_t*>(rows) + offset + lane.column;
  *reinterpret_cast<uint32_t*>(target) = stored_e4m3(head.values[0], by);
  *reinterpret_cast<uint32_t*>(target + lane.half) = stored_e4m3(head.values[1], by);
}

template <bool kTwoWarps>
__device__ float inverse_rms(const Head& head, int head_dim, float eps) {
  float squares = head_norm::warp_squares(head);
  if constexpr (kTwoWarps) {
    __shared__ float parts[kWarps];
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = squares;
    __syncthreads();
    squares = parts[0] + parts[1];
  }
  return head_norm::inverse_rms(squares, head_dim, eps);
}

// Where a row stands, and by how much its heads are rotated there.
struct Place {
  int sequence = -1;
  int64_t offset = 0;  // of keys and values in the cache
  head_norm::Rotation rotation;
};

__device__ Place load_place(const HeadPrep& job, const Rows& rows, int row, Part part, int kv_head,
                            const float4& inv_freq) {
  Place place;
  place.sequence = rows.sequences[row];
  const int position = rows.positions[row];
  if (part != kQuery && place.sequence >= 0)
    place.offset =
        kv_offset(job.places, job.num_kv_heads, job.head_dim, place.sequence, kv_head, position);
  if (part != kValue) head_norm::set_rotation(position, inv_freq, place.rotation);
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

// Unless `live` it is a rehearsal (launch.cuh).
template <bool kTwoWarps, bool kFp8>
__device__ void prepare_head(const HeadPrep& job, int row, int unit, Part part, const Lane& lane,
                             const Constants& constants, const Place& place, bool live) {
  const int pieces[2] = {live ? constants.pieces[0] : 0, live ? constants.pieces[1] : 0};
  const head_norm::RawPieces sums =
      head_norm::load_pieces(job.product, lane, row, unit * job.head_dim, pieces);
  Lane target = lane;
  target.exists = lane.exists && live;
  uint16_t* const q = job.q + (static_cast<int64_t>(row) * job.num_heads + unit) * job.head_dim;
  if (place.sequence < 0) {
    if (part == kQuery) store_head(target, Head{}, q);
    return;
  }
  const Head raw = head_norm::sum_head(sums, pieces, job.scales[static_cast<int>(part)]);
  const float inverse = inverse_rms<kTwoWarps>(raw, job.head_dim, job.eps);
  if (part == kValue)
    return store_kv<kFp8>(target, plain_norm(raw, inverse), job.kv.v, place.offset, job.kv.v_scale);
  const Head rotated = head_norm::norm_and_rotate(raw, inverse, place.rotation, constants);
  if (part == kQuery) return store_head(target, rotated, q);
  store_kv<kFp8>(target, rotated, job.kv.k, place.offset, job.kv.k_scale);
  if (job.k_eq_v)
    store_kv<kFp8>(target, plain_norm(raw, inverse), job.kv.v, place.offset, job.kv.v_scale);
}

// grid (groups of heads, row): kWarps heads, or one with kTwoWarps
template <bool kTwoWarps, bool kFp8>
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
  const Constants constants = head_norm::load_constants(job.product, lane, unit * job.head_dim,
                                                        part == kQuery ? job.q_norm
                                                        : part == kKey ? job.k_norm
                                                                       : nullptr,
                                                        job.inv_freq);
  if (!rows.early_plan) wait_for_previous();
  const Place place = load_place(job, rows, row, part, kv_head, constants.inv_freq);
#pragma unroll 1
  for (int turn = first_turn(rows.early_plan); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live && rows.early_plan) wait_for_previous();
    prepare_head<kTwoWarps, kFp8>(job, row, unit, part, lane, constants, place, live);
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
  const bool fp8 = job.num_kv_heads > 0 && job.kv.is_fp8;
  auto* const kernel = two_warps
                           ? fp8 ? head_prep_kernel<true, true> : head_prep_kernel<true, false>
                       : fp8 ? head_prep_kernel<false, true>
                             : head_prep_kernel<false, false>;
  launch(stream, kernel, dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows.num_rows)),
         dim3(kWarps * 32), 0, job, rows);
}

}  // namespace tandem::ops::cuda
