#include "ops/cuda/head.h"

#include "ops/cuda/head_keys.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffU;
constexpr int kWarpSets = 8;  // sets of 128 columns that a warp reads at once
constexpr int kTileWarps = 8;

// x is the uncapped logit, sum * scale.
__device__ float capped(const HeadLogits& head, float x) {
  return head.cap > 0.0F ? head.cap * tanhf(x / head.cap) : x;
}

// Uncapped logits of one row: value [s][j] is of column (first_set + s) * 128 + lane * 4 + j.
template <int kSets>
struct SetLogits {
  float x[kSets][4];
};

// Lane s has the number of pieces of set first_set + s. Needs no result of another kernel.
__device__ int lane_pieces(const HeadLogits& head, int first_set, int lane) {
  const bool inside = lane < kWarpSets && (first_set + lane) * kSetColumns < head.vocab_size;
  return inside ? head.sums.num_pieces(first_set + lane) : 0;
}

template <int kSets>
__device__ void load_logits(const HeadLogits& head, int row, int first_set, int lane, int pieces,
                            SetLogits<kSets>& out) {
  const int64_t set_stride = static_cast<int64_t>(head.sums.max_pieces) * head.sums.num_rows;
  const int64_t piece_stride = static_cast<int64_t>(head.sums.num_rows) * kSetColumns;
  const float* source = head.sums.data + (first_set * set_stride + row) * kSetColumns + lane * 4;
  float4 sums[kSets];
#pragma unroll
  for (int s = 0; s < kSets; ++s)
    sums[s] = load4_if(__shfl_sync(kAll, pieces, s) > 0, source + s * set_stride * kSetColumns);
#pragma unroll
  for (int s = 0; s < kSets; ++s) {
    const int set_pieces = __shfl_sync(kAll, pieces, s);
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
  __device__ int id(int i) const { return i < 32 ? __shfl_sync(kAll, mine_, i) : ids_[i]; }

 private:
  const int32_t* ids_;
  int count_;
  int mine_;
};

// The first candidate of kSets sets, the same in every lane. Leaves NaN where there is none.
template <int kSets>
__device__ Key first_key(const HeadLogits& head, const Suppressed& suppressed, int first_set,
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
  if (!__all_sync(kAll, finite)) return kNotFiniteKey;
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
  largest = from_ordered(__reduce_max_sync(kAll, ordered(largest)));
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
  const uint32_t high = __reduce_max_sync(kAll, static_cast<uint32_t>(best >> 32));
  const bool leads = static_cast<uint32_t>(best >> 32) == high;
  const uint32_t low = __reduce_max_sync(kAll, leads ? static_cast<uint32_t>(best) : 0U);
  return (static_cast<Key>(high) << 32) | low;
}

// Warp w of a block reads kWarpSets sets of row w of a tile.
__global__ void __launch_bounds__(32 * kTileWarps)
    argmax_kernel(const HeadLogits head, const ArgmaxScratch scratch, int32_t* tokens,
                  const DraftToken draft) {
  allow_next();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.y * kTileWarps + threadIdx.x / 32);
  const int first_set = static_cast<int>(blockIdx.x) * kWarpSets;
  const int pieces = lane_pieces(head, first_set, lane);
  const Suppressed suppressed(head, lane);
  wait_for_previous();
  if (row >= head.num_rows) return;
  SetLogits<kWarpSets> logits;
  load_logits(head, row, first_set, lane, pieces, logits);
  const Key key = first_key(head, suppressed, first_set, lane, logits);
  if (lane == 0) tell_candidate(scratch, row, gridDim.x, key, tokens, draft);
}

__global__ void __launch_bounds__(32 * kTileWarps)
    full_logits_kernel(const HeadLogits head, const int32_t* rows, float* out) {
  allow_next();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int set = static_cast<int>(blockIdx.x * kTileWarps + threadIdx.x / 32);
  const int column = set * kSetColumns + lane * 4;
  const int pieces = column < head.vocab_size ? head.sums.num_pieces(set) : 0;
  wait_for_previous();
  if (column >= head.vocab_size) return;
  const int row = rows == nullptr ? static_cast<int>(blockIdx.y) : rows[blockIdx.y];
  const float4 sum = load_sum4(head.sums, row, column, pieces);
  const float4 scale = scales_of(head, column);
  const float4 logits = {capped(head, sum.x * scale.x), capped(head, sum.y * scale.y),
                         capped(head, sum.z * scale.z), capped(head, sum.w * scale.w)};
  float* target = out + static_cast<int64_t>(blockIdx.y) * head.vocab_size + column;
  if (head.vocab_size % 4 == 0) {
    *reinterpret_cast<float4*>(target) = logits;
    return;
  }
  const float values[4] = {logits.x, logits.y, logits.z, logits.w};
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (column + j < head.vocab_size) target[j] = values[j];
}

int num_sets_of(const HeadLogits& head) {
  return (head.vocab_size + kSetColumns - 1) / kSetColumns;
}

void check_head(const HeadLogits& head) {
  TANDEM_GPU_CHECK(head.num_rows > 0 && head.num_rows <= head.sums.num_rows);
  TANDEM_GPU_CHECK(head.vocab_size > 0 && head.vocab_size <= kMaxVocab);
  TANDEM_GPU_CHECK(static_cast<int64_t>(num_sets_of(head)) * head.sums.set_blocks <=
                   head.sums.total_blocks);
}

dim3 tile_grid(const HeadLogits& head) {
  return {static_cast<unsigned>((num_sets_of(head) + kWarpSets - 1) / kWarpSets),
          static_cast<unsigned>((head.num_rows + kTileWarps - 1) / kTileWarps), 1};
}

}  // namespace

size_t argmax_scratch_bytes(int num_rows) {
  return static_cast<size_t>(num_rows) * (sizeof(Key) + sizeof(unsigned));
}

void argmax_rows(const Stream& stream, const HeadLogits& head, void* scratch, int32_t* tokens,
                 const DraftToken* draft) {
  check_head(head);
  TANDEM_GPU_CHECK(draft == nullptr ||
                   (draft->num_entries <= head.num_rows && draft->step < kMaxDrafts));
  launch(stream, argmax_kernel, tile_grid(head), dim3(32 * kTileWarps), 0, head,
         argmax_scratch(scratch, head.num_rows), tokens, draft == nullptr ? DraftToken{} : *draft);
}

void full_logits(const Stream& stream, const HeadLogits& head, const int32_t* rows, int num_out,
                 float* out) {
  check_head(head);
  TANDEM_GPU_CHECK(num_out > 0 && (rows != nullptr || num_out <= head.num_rows));
  const dim3 grid(static_cast<unsigned>((num_sets_of(head) + kTileWarps - 1) / kTileWarps),
                  static_cast<unsigned>(num_out));
  launch(stream, full_logits_kernel, grid, dim3(32 * kTileWarps), 0, head, rows, out);
}

}  // namespace tandem::ops::cuda
