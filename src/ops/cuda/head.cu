#include "ops/cuda/head.h"

#include "ops/cuda/head_rows.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

// x is the uncapped logit, sum * scale.
__device__ float capped(const HeadLogits& head, float x) {
  return head.cap > 0.0F ? head.cap * tanhf(x / head.cap) : x;
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
  return static_cast<size_t>(num_rows) * (sizeof(Key) + sizeof(unsigned) + sizeof(uint32_t));
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
