// The logits of a row from a head's partial sums, by warps that read some sets each.
#pragma once

#include "ops/cuda/head_keys.cuh"

namespace tandem::ops::cuda {

inline constexpr int kWarpSets = 8;   // sets of 128 columns that a warp reads at once
inline constexpr int kTileWarps = 8;  // of a thread block: rows

// Uncapped logits of one row: value [s][j] is of column (first_set + s) * 128 + lane * 4 + j.
template <int kSets>
struct SetLogits {
  float x[kSets][4];
};

// Lane s has the number of pieces of set first_set + s. Needs no result of another kernel.
__device__ inline int lane_pieces(const HeadLogits& head, int first_set, int lane) {
  const bool inside = lane < kWarpSets && (first_set + lane) * kSetColumns < head.vocab_size;
  return inside ? head.sums.num_pieces(first_set + lane) : 0;
}

template <int kSets>
__device__ inline void load_logits(const HeadLogits& head, int row, int first_set, int lane,
                                   int pieces, SetLogits<kSets>& out) {
  const int64_t set_stride = static_cast<int64_t>(head.sums.max_pieces) * head.sums.num_rows;
  const int64_t piece_stride = static_cast<int64_t>(head.sums.num_rows) * kSetColumns;
  const float* source = head.sums.data + (first_set * set_stride + row) * kSetColumns + lane * 4;
  float4 sums[kSets];
#pragma unroll
  for (int s = 0; s < kSets; ++s)
    sums[s] =
        load4_if(__shfl_sync(kWholeWarp, pieces, s) > 0, source + s * set_stride * kSetColumns);
#pragma unroll
  for (int s = 0; s < kSets; ++s) {
    const int set_pieces = __shfl_sync(kWholeWarp, pieces, s);
    for (int i = 1; i < set_pieces; ++i) {
      const float4 next = *reinterpret_cast<const float4*>(source + s * set_stride * kSetColumns +
                                                           i * piece_stride);
      sums[s].x += next.x;
      sums[s].y += next.y;
      sums[s].z += next.z;
      sums[s].w += next.w;
    }
    float4 scale = {};
    if (set_pieces > 0) scale = scales_of(head, (first_set + s) * kSetColumns + lane * 4);
    out.x[s][0] = sums[s].x * scale.x;
    out.x[s][1] = sums[s].y * scale.y;
    out.x[s][2] = sums[s].z * scale.z;
    out.x[s][3] = sums[s].w * scale.w;
  }
}

// The suppressed ids, the first 32 of them in the lanes of a warp: they are constants, read before
// the results of other kernels are there.
class Suppressed {
 public:
  __device__ Suppressed(const HeadLogits& head, int lane)
      : ids_(head.suppressed),
        count_(head.num_suppressed),
        mine_(lane < count_ ? ids_[lane] : -1) {}
  __device__ int count() const { return count_; }
  // Called by whole warps.
  __device__ int id(int i) const { return i < 32 ? __shfl_sync(kWholeWarp, mine_, i) : ids_[i]; }

 private:
  const int32_t* ids_;
  int count_;
  int mine_;
};

// The first candidate of kSets sets, the same in every lane. Leaves NaN where there is none.
template <int kSets>
__device__ inline Key first_key(const HeadLogits& head, const Suppressed& suppressed, int first_set,
                                int lane, SetLogits<kSets>& logits) {
  const int first_id = first_set * kSetColumns + lane * 4;
  const float nan = __int_as_float(0x7fffffff);
  bool finite = true;
#pragma unroll
  for (int s = 0; s < kSets; ++s)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const bool inside = first_id + s * kSetColumns + j < head.vocab_size;
      finite = finite && (!inside || is_finite(head, logits.x[s][j]));
      if (!inside) logits.x[s][j] = nan;
    }
  if (!__all_sync(kWholeWarp, finite)) return kNotFiniteKey;
  for (int i = 0; i < suppressed.count(); ++i) {
    const int offset = suppressed.id(i) - first_set * kSetColumns;
    if (offset < 0 || offset >= kSets * kSetColumns) continue;
#pragma unroll
    for (int s = 0; s < kSets; ++s)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (offset == s * kSetColumns + lane * 4 + j) logits.x[s][j] = nan;
  }
  float largest = -__int_as_float(0x7f800000);
#pragma unroll
  for (int s = 0; s < kSets; ++s)
#pragma unroll
    for (int j = 0; j < 4; ++j) largest = fmaxf(largest, logits.x[s][j]);  // NaN takes no part
  largest = from_ordered(__reduce_max_sync(kWholeWarp, ordered(largest)));
  const float floor = floor_of(head.cap, largest);
  Key best = kNoKey;
#pragma unroll
  for (int s = 0; s < kSets; ++s)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (!(logits.x[s][j] >= floor)) continue;
      const float logit =
          head.cap > 0.0F ? capped_rarely(head.cap, logits.x[s][j]) : logits.x[s][j];
      if (logit == -__int_as_float(0x7f800000)) continue;
      const Key key = make_key(logit, first_id + s * kSetColumns + j);
      best = key > best ? key : best;
    }
  const uint32_t high = __reduce_max_sync(kWholeWarp, static_cast<uint32_t>(best >> 32));
  const bool leads = static_cast<uint32_t>(best >> 32) == high;
  const uint32_t low = __reduce_max_sync(kWholeWarp, leads ? static_cast<uint32_t>(best) : 0U);
  return (static_cast<Key>(high) << 32) | low;
}

}  // namespace tandem::ops::cuda
