#include "ops/cuda/wide_keys.h"

#include "ops/cuda/attention.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_ptx.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kThreads = 256;

// 16 values.
__device__ void widen_piece(const void* codes, int64_t source, uint16_t* target) {
  // From L2: the kernel in front has just written some of them.
  const uint4 own =
      __ldcg(reinterpret_cast<const uint4*>(static_cast<const uint8_t*>(codes) + source));
  const uint2 a = ptx::widen_e4m3(own.x);
  const uint2 b = ptx::widen_e4m3(own.y);
  const uint2 c = ptx::widen_e4m3(own.z);
  const uint2 d = ptx::widen_e4m3(own.w);
  auto* const out = reinterpret_cast<uint4*>(target);
  out[0] = {a.x, a.y, b.x, b.y};
  out[1] = {c.x, c.y, d.x, d.y};
}

// grid (blocks of a tile, tile)
__global__ void __launch_bounds__(kThreads)
    widen_keys_kernel(const WidenKeys op, const Rows rows, const WideTiles tiles) {
  allow_next();
  wait_for_previous();
  const int tile = static_cast<int>(blockIdx.y);
  const int begin = tiles.chunk_begins[tile];
  const int end = tiles.chunk_ends[tile];
  const int row = tiles.first_rows[tile];
  const int own_tile = (rows.positions[row] - begin) / kWideTileRows;
  const int num_tiles = (end - begin + kWideTileRows - 1) / kWideTileRows;
  const int first = (static_cast<int>(blockIdx.x) * num_tiles + own_tile) * kWidenedTogether;
  const int count = min(end - first, kWidenedTogether);
  const int64_t first_out = int64_t{tiles.widened_rows[tile]} + first;
  const int pieces = op.head_dim / 16;
  const int of_key = op.num_kv_heads * pieces;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < count * of_key; i += kThreads) {
    const int key = i / of_key;
    const int kv_head = i % of_key / pieces;
    const int column = i % pieces * 16;
    const int64_t source = kv_offset(op.places, op.num_kv_heads, op.head_dim, rows.sequences[row],
                                     kv_head, first + key) +
                           column;
    const int64_t target = ((first_out + key) * op.num_kv_heads + kv_head) * op.head_dim + column;
    widen_piece(op.kv.k, source, op.k + target);
    widen_piece(op.kv.v, source, op.v + target);
  }
}

}  // namespace

void widen_keys(const Stream& stream, const Rows& rows, const WideTiles& tiles,
                const WidenKeys& op) {
  TANDEM_GPU_CHECK(op.kv.is_fp8 && op.head_dim % 16 == 0 && op.places.ring_len == 0);
  TANDEM_GPU_CHECK(tiles.num_tiles > 0 && tiles.widened_rows != nullptr);
  launch(stream, widen_keys_kernel,
         dim3(static_cast<unsigned>(op.blocks_of_tile), static_cast<unsigned>(tiles.num_tiles)),
         dim3(kThreads), 0, op, rows, tiles);
}

}  // namespace tandem::ops::cuda
