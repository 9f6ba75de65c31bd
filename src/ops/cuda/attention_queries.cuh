// Queries that attention (attention.cu) makes itself, a warp that computes for each pair, from what
// the product of q left: head_prep() without a kernel and a link of its own.
#pragma once

#include "ops/cuda/attention_codes.cuh"
#include "ops/cuda/attention_ring.cuh"
#include "ops/cuda/head_norm.cuh"
#include "ops/cuda/product_ptx.cuh"

namespace tandem::ops::cuda::segment {

// No thread needs the queries before any more; those of pairs that are not there stay zero.
template <typename P>
__device__ void clear_queries(uint32_t shared) {
  for (int at = static_cast<int>(threadIdx.x); at < P::kQueryBytes / 16; at += kComputing)
    ptx::store_shared(shared + P::kQueryAt + static_cast<uint32_t>(at * 16), uint4{});
}

// Four columns of a query.
template <typename P>
__device__ void store_query(const Job& job, uint32_t shared, int pair, int column,
                            const float (&values)[4]) {
  const uint32_t target = shared + P::kQueryAt + query_at<P>(P::kMostPairs, pair, column);
  const uint2 packed = head_norm::pack_bf16x4(values);
  if constexpr (P::kE4m3) {
    const ptx::TwoCodes first = query_codes(packed.x, job.attention.query_scale);
    const ptx::TwoCodes last = query_codes(packed.y, job.attention.query_scale);
    ptx::store_shared(target, first.high | last.high << 16);
    ptx::store_shared(target + kLowAt, first.low | last.low << 16);
  } else {
    ptx::store_shared(target, packed);
  }
}

// `waits`: for the kernels before, once a warp has what does not depend on them.
template <typename P>
__device__ void make_queries(const Job& job, const typename P::Control& control, bool waits,
                             uint32_t shared) {
  static_assert(P::kMostPairs == kComputing / 32);
  const Attention& attention = job.attention;
  const QuerySums& source = attention.query_sums;
  const int pair = static_cast<int>(threadIdx.x) / 32;
  if (control.pairs[pair].slot < 0) {
    if (waits) wait_for_previous();
    return;
  }
  const int half = attention.head_dim / 2;
  const int column = static_cast<int>(threadIdx.x) % 32 * 4;
  const head_norm::Lane lane{column, half, column < half};
  const int row = control.pairs[pair].index / attention.num_heads;
  const int first_column = control.pairs[pair].index % attention.num_heads * attention.head_dim;
  const head_norm::Constants constants =
      head_norm::load_constants(source.sums, lane, first_column, source.norm, source.inv_freq);
  const ColumnCount columns(attention.head_dim);
  head_norm::Rotation rotation;
  head_norm::set_rotation(job.rows.positions[row], constants.inv_freq, rotation);
  if (waits) wait_for_previous();
  const head_norm::Head raw = head_norm::sum_head(
      head_norm::load_pieces(source.sums, lane, row, first_column, constants.pieces),
      constants.pieces, source.scale);
  const float inverse = inverse_rms(head_norm::warp_squares(raw), columns, source.eps);
  const head_norm::Head head = head_norm::norm_and_rotate(raw, inverse, rotation, constants);
  if (!lane.exists) return;
  store_query<P>(job, shared, pair, column, head.values[0]);
  store_query<P>(job, shared, pair, column + half, head.values[1]);
}

}  // namespace tandem::ops::cuda::segment
