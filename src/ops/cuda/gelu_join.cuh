// Gate and up of a feature, joined by the thread that has the sums of both (gated_feature()).
#pragma once

#include "ops/cuda/operand.cuh"
#include "ops/cuda/row_math.cuh"
#include "ops/cuda/wide_operand.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda {

// Two values of BF16 each: bf16(gelu_tanh(gate)) * up, rounded.
__device__ inline uint32_t gelu_times(uint32_t gate, uint32_t up) {
  const uint32_t active = bf16x2(gelu_tanh(low_bf16(gate)), gelu_tanh(high_bf16(gate)));
  return bf16x2(low_bf16(active) * low_bf16(up), high_bf16(active) * high_bf16(up));
}

// `sums`: a warp's of eight rows, as products leave them: gate of rows 2t and 2t + 1, and up of the
// same. Gives row lane / 4, features lane % 4 * 2 and + 1 of the warp's kGatedGroup.
__device__ inline uint32_t join_rows(const float* sums, float gate_scale, float up_scale) {
  return ptx::transpose8x8(gelu_times(bf16x2(sums[0] * gate_scale, sums[1] * gate_scale),
                                      bf16x2(sums[2] * up_scale, sums[3] * up_scale)));
}

struct JoinScales {
  float gate, up;
};

// store(tile, join_rows() of it) for all rows. Takes the sums.
template <int kTiles, typename Store>
__device__ inline void join_tiles(float (&sums)[kTiles * 4], const JoinScales& scales,
                                  const Store& store) {
  constexpr int kTogether = kTiles < 4 ? kTiles : 4;
  // Code that is new is waited for: there is little.
#pragma unroll 1
  for (int begin = 0; begin < kTiles; begin += kTogether) {
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      store(begin + i, join_rows(sums + i * 4, scales.gate, scales.up));
#pragma unroll
    for (int i = 0; i < (kTiles - kTogether) * 4; ++i) sums[i] = sums[i + kTogether * 4];
  }
}

// A warpgroup's 32 features of all rows, as an operand of E4M3 has them (operand.cuh), to `target`
// in shared memory: each warp has half of a chunk, and memory takes whole sectors. Takes the sums.
// The warpgroup's threads wait for each other, by a barrier of their own.
template <int kTiles>
__device__ inline void join_e4m3(float (&sums)[kTiles * 4], const JoinScales& scales,
                                 const FloatDivisor& by, uint32_t target, int barrier) {
  // What the compiler could compute in front of the products would take registers from them.
  const int thread = ptx::thread_now() % 128;
  const int lane = thread % 32;
  const uint32_t own =
      target + thread / 64 * 128 + lane / 4 * 16 + lane % 4 * 4 + thread / 32 % 2 * 2;
  ptx::named_barrier(barrier, 128);  // what was there before has been read
  join_tiles<kTiles>(sums, scales, [&](int tile, uint32_t two) {
    ptx::store_shared16(own + tile * kE4m3TileBytes, e4m3x2(low_bf16(two), high_bf16(two), by));
  });
  ptx::named_barrier(barrier, 128);
}

}  // namespace tandem::ops::cuda
