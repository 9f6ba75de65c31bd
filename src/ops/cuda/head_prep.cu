// Of few rows one warp works on one head of one row, two on heads of more than 256 columns
// (head_norm.cuh); of many a thread block on the heads of one row (row_heads.cuh).
#include <algorithm>

#include "ops/cuda/attention.cuh"
#include "ops/cuda/head_norm.cuh"
#include "ops/cuda/head_prep.h"
#include "ops/cuda/kv_store.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/row_heads.cuh"

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
  const FloatDivisor by = kv_divisor(scale);
  auto* const target = static_cast<uint8_t*>(rows) + offset + lane.column;
  *reinterpret_cast<uint32_t*>(target) = stored_e4m3(head.values[0], by);
  *reinterpret_cast<uint32_t*>(target + lane.half) = stored_e4m3(head.values[1], by);
}

template <bool kTwoWarps>
__device__ float head_inverse_rms(const Head& head, const ColumnCount& columns, float eps) {
  float squares = head_norm::warp_squares(head);
  if constexpr (kTwoWarps) {
    __shared__ float parts[kWarps];
    const unsigned warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) parts[warp] = squares;
    __syncthreads();
    squares = parts[0] + parts[1];
  }
  return inverse_rms(squares, columns, eps);
}

// What a head of the product's is; first_value: the first one of V.
__device__ Part part_of(const HeadPrep& job, int index, int first_value) {
  return index < job.num_heads ? kQuery : index < first_value ? kKey : kValue;
}
__device__ int kv_head_of(const HeadPrep& job, int index, int first_value, Part part) {
  return index - (part == kKey ? job.num_heads : first_value);
}

// Where a row stands.
struct Place {
  int sequence = -1;
  int position = 0;
  int64_t offset = 0;  // of keys and values in the cache
};

__device__ Place load_place(const HeadPrep& job, const Rows& rows, int row, Part part,
                            int kv_head) {
  Place place{rows.sequences[row], rows.positions[row]};
  if (part != kQuery && place.sequence >= 0)
    place.offset = kv_offset(job.places, job.num_kv_heads, job.head_dim, place.sequence, kv_head,
                             place.position);
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

// A head of a row, and who works on it.
struct Unit {
  int row;
  int index;  // of the product's heads
  int kv_head;
  Part part;
  Lane lane;

  __device__ Unit(const HeadPrep& job, int row_in, int index_in, int warp)
      : row(row_in), index(index_in) {
    const int first_value = job.num_heads + job.num_kv_heads;
    part = part_of(job, index, first_value);
    kv_head = kv_head_of(job, index, first_value, part);
    const int half = job.head_dim / 2;
    const int column = (static_cast<int>(threadIdx.x) % 32 + warp * 32) * 4;
    lane = {column, half, column < half};
  }
  __device__ Constants constants(const HeadPrep& job) const {
    return head_norm::load_constants(job.product, lane, index * job.head_dim,
                                     part == kQuery ? job.q_norm
                                     : part == kKey ? job.k_norm
                                                    : nullptr,
                                     job.inv_freq);
  }
  __device__ Head load(const HeadPrep& job, const int (&pieces)[2]) const {
    return head_norm::sum_head(
        head_norm::load_pieces(job.product, lane, row, index * job.head_dim, pieces), pieces,
        job.scales[static_cast<int>(part)]);
  }
};
__host__ __device__ inline int units_of(const HeadPrep& job) {
  return job.num_heads + (job.k_eq_v ? 1 : 2) * job.num_kv_heads;
}

// Unless `live` it is a rehearsal (launch.cuh).
template <bool kTwoWarps, bool kFp8>
__device__ void prepare_head(const HeadPrep& job, const Unit& unit, const Head& raw,
                             const Constants& constants, const Place& place,
                             const head_norm::Rotation& rotation, const ColumnCount& columns,
                             bool live) {
  Lane target = unit.lane;
  target.exists = unit.lane.exists && live;
  uint16_t* const q =
      job.q + (static_cast<int64_t>(unit.row) * job.num_heads + unit.index) * job.head_dim;
  if (place.sequence < 0) {
    if (unit.part == kQuery) store_head(target, Head{}, q);
    return;
  }
  const float inverse = head_inverse_rms<kTwoWarps>(raw, columns, job.eps);
  if (unit.part == kValue)
    return store_kv<kFp8>(target, plain_norm(raw, inverse), job.kv.v, place.offset, job.kv.v_scale);
  const Head rotated = head_norm::norm_and_rotate(raw, inverse, rotation, constants);
  if (unit.part == kQuery) return store_head(target, rotated, q);
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
  const int index =
      static_cast<int>(blockIdx.x) * (kTwoWarps ? 1 : kWarps) + (kTwoWarps ? 0 : warp);
  if (index >= units_of(job)) return wait_for_previous();
  const Unit unit(job, static_cast<int>(blockIdx.y), index, kTwoWarps ? warp : 0);
  const Constants constants = unit.constants(job);
  const ColumnCount columns(job.head_dim);
  if (!rows.early_plan) wait_for_previous();
  const Place place = load_place(job, rows, unit.row, unit.part, unit.kv_head);
  head_norm::Rotation rotation;
  if (unit.part != kValue) head_norm::set_rotation(place.position, constants.inv_freq, rotation);
#pragma unroll 1
  for (int turn = first_turn(rows.early_plan); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live && rows.early_plan) wait_for_previous();
    const int pieces[2] = {live ? constants.pieces[0] : 0, live ? constants.pieces[1] : 0};
    const Head raw = unit.load(job, pieces);
    prepare_head<kTwoWarps, kFp8>(job, unit, raw, constants, place, rotation, columns, live);
    if constexpr (kTwoWarps) __syncthreads();
  }
}

// Many rows: the kernel before leaves no room until it is over, so nothing is gained by rehearsing,
// and every instruction counts. grid (groups of heads, row); as many threads as give the fewest
// groups.
constexpr int kManyThreads = 9 * 32;  // the 12B's full layers have 17 heads of 512
template <bool kFp8>
__global__ void __launch_bounds__(kManyThreads, 3)
    head_prep_many_kernel(const HeadPrep job, const Rows rows) {
  allow_next();
  const int half = job.head_dim / 2;
  const int lanes = half / 8;
  const ColumnCount columns(job.head_dim);
  const int thread = static_cast<int>(threadIdx.x);
  const int column = thread % lanes * 8;
  const int row = static_cast<int>(blockIdx.y);
  const int index = (static_cast<int>(blockIdx.x * blockDim.x) + thread) / lanes;
  const bool exists = index < units_of(job);
  const int first_value = job.num_heads + job.num_kv_heads;
  const Part part = part_of(job, index, first_value);
  const int first_column = exists ? index * job.head_dim + column : 0;
  const int pieces[2] = {exists ? job.product.num_pieces(first_column / kSetColumns) : 0,
                         exists ? job.product.num_pieces((first_column + half) / kSetColumns) : 0};
  const uint16_t* const norm = part == kQuery ? job.q_norm : job.k_norm;
  const row_heads::HeadBits weight = row_heads::load_head(norm + column, half, part != kValue);
  if (!rows.early_plan) wait_for_previous();
  const int sequence = rows.sequences[row];
  const int position = rows.positions[row];
  if (rows.early_plan) wait_for_previous();
  EightSums<2, 2> sums(job.product, row, first_column, half, pieces);
  const row_heads::Angles angles =
      row_heads::row_angles(job.inv_freq, sequence < 0 ? 0 : position, half, column);
  const bool stores_kv = exists && part != kQuery && sequence >= 0;
  const int64_t place =
      column + (stores_kv ? kv_offset(job.places, job.num_kv_heads, job.head_dim, sequence,
                                      kv_head_of(job, index, first_value, part), position)
                          : 0);
  sums.add_up();
  const float scale = job.scales[static_cast<int>(part)];
  const row_heads::Head raw = {{sums.scaled_run(0, scale), sums.scaled_run(1, scale)}};
  const float inverse = row_heads::inverse_rms(raw, lanes, columns, job.eps);
  if (!exists) return;
  row_heads::Head head = {};  // of padding
  if (sequence >= 0 && part != kValue) head = row_heads::rotated(raw, inverse, weight, angles);
  if (part == kQuery) {
    const int64_t target = static_cast<int64_t>(row) * job.num_heads + index;
    row_heads::store_head(head, job.q + target * job.head_dim + column, half);
  }
  if (!stores_kv) return;
  if (part == kKey) row_heads::store_kv<kFp8>(head, job.kv.k, place, false, job.kv.k_scale, half);
  if (part == kValue || job.k_eq_v)
    row_heads::store_kv<kFp8>(row_heads::plain_norm(raw, inverse), job.kv.v, place, false,
                              job.kv.v_scale, half);
}

template <bool kTwoWarps, bool kFp8>
void launch_heads(const Stream& stream, const Rows& rows, const HeadPrep& job) {
  const int units = units_of(job);
  // Products of so many rows have all registers of a multiprocessor.
  if (job.product.num_rows >= 96 && rows.num_rows * units > 8 * num_multiprocessors() &&
      row_heads::takes_head_dim(job.head_dim)) {
    const int lanes = job.head_dim / 16;
    const int groups = (units * lanes + kManyThreads - 1) / kManyThreads;
    // Whole heads, whole warps, and a thread for each angle.
    const int own = ((units + groups - 1) / groups * lanes + 31) / 32 * 32;
    const int threads = std::max(own, job.head_dim / 2);
    launch(stream, head_prep_many_kernel<kFp8>,
           dim3(static_cast<unsigned>((units * lanes + threads - 1) / threads),
                static_cast<unsigned>(rows.num_rows)),
           dim3(static_cast<unsigned>(threads)), 0, job, rows);
    return;
  }
  const int blocks = (units * (kTwoWarps ? 2 : 1) + kWarps - 1) / kWarps;
  launch(stream, head_prep_kernel<kTwoWarps, kFp8>,
         dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows.num_rows)),
         dim3(kWarps * 32), 0, job, rows);
}

}  // namespace

void head_prep(const Stream& stream, const Rows& rows, const HeadPrep& job) {
  TANDEM_GPU_CHECK(job.head_dim >= 32 && job.head_dim <= 512 && job.head_dim % 32 == 0);
  TANDEM_GPU_CHECK(job.num_heads > 0 && job.num_kv_heads >= 0);
  TANDEM_GPU_CHECK(rows.num_rows <= job.product.num_rows);
  if (rows.num_rows == 0) return;
  const bool fp8 = job.num_kv_heads > 0 && job.kv.is_fp8;
  if (job.head_dim > 256)
    return fp8 ? launch_heads<true, true>(stream, rows, job)
               : launch_heads<true, false>(stream, rows, job);
  return fp8 ? launch_heads<false, true>(stream, rows, job)
             : launch_heads<false, false>(stream, rows, job);
}

}  // namespace tandem::ops::cuda
