// The norm and the rotation of one head of one row, by a warp, or by two where it has more than 256
// columns: a lane holds what is rotated together, four columns of the lower half and the same four
// of the upper half. Rounds to BF16 where ops/rms_norm and ops/rope on BF16 rows do.
#pragma once

#include "ops/cuda/operand.cuh"
#include "ops/cuda/partials.cuh"

namespace tandem::ops::cuda::head_norm {

// Values [lower, upper half][column].
struct Head {
  float values[2][4];
};

struct Lane {
  int column;   // of the lower half, and half on
  int half;     // head_dim / 2
  bool exists;  // has columns
};

__device__ inline float4 load_bf16x4(const uint16_t* source) {
  const uint2 bits = *reinterpret_cast<const uint2*>(source);
  return make_float4(low_bf16(bits.x), high_bf16(bits.x), low_bf16(bits.y), high_bf16(bits.y));
}

__device__ inline uint2 pack_bf16x4(const float (&values)[4]) {
  return make_uint2(bf16x2(values[0], values[1]), bf16x2(values[2], values[3]));
}

// What does not depend on earlier kernels, fetched while they finish.
struct Constants {
  int pieces[2] = {0, 0};
  float4 weight[2] = {};
  float4 inv_freq = {};
};

// `first_column`: of the head in the product. `norm`: [head_dim] BF16, or null.
__device__ inline Constants load_constants(const Partials& product, const Lane& lane,
                                           int first_column, const uint16_t* norm,
                                           const float* inv_freq) {
  Constants constants;
  if (!lane.exists) return constants;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const int column = lane.column + upper * lane.half;
    constants.pieces[upper] = product.num_pieces((first_column + column) / kSetColumns);
    if (norm != nullptr) constants.weight[upper] = load_bf16x4(norm + column);
  }
  constants.inv_freq = *reinterpret_cast<const float4*>(inv_freq + lane.column);
  return constants;
}

// The sums of a lane's columns on their way; zero pieces where there are no columns.
struct RawPieces {
  Pieces4 halves[2];
};

__device__ inline RawPieces load_pieces(const Partials& product, const Lane& lane, int row,
                                        int first_column, const int (&pieces)[2]) {
  RawPieces raw;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    const int column = lane.exists ? lane.column + upper * lane.half : 0;
    raw.halves[upper] = load_pieces4<Pieces4>(product, row, first_column + column, pieces[upper]);
  }
  return raw;
}

__device__ inline Head sum_head(const RawPieces& raw, const int (&pieces)[2], float scale) {
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

// A warp's part of the sum of squares, in an order that only head_dim decides.
__device__ inline float warp_squares(const Head& head) {
  float squares = 0.0F;
#pragma unroll
  for (int upper = 0; upper < 2; ++upper)
#pragma unroll
    for (int c = 0; c < 4; ++c)
      squares = fmaf(head.values[upper][c], head.values[upper][c], squares);
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) squares += __shfl_xor_sync(0xffffffffU, squares, mask);
  return squares;
}

// By how much a lane's columns are rotated at a position.
struct Rotation {
  float cos[4];
  float sin[4];
};

__device__ inline void set_rotation(int position, const float4& inv_freq, Rotation& rotation) {
  // Not written out four times: a kernel's code comes from memory.
#pragma unroll 1
  for (int c = 0; c < 4; ++c) {
    const float frequency = c < 2 ? (c == 0 ? inv_freq.x : inv_freq.y)  //
                                  : (c == 2 ? inv_freq.z : inv_freq.w);
    float sin;
    float cos;
    sincosf(__fmul_rn(static_cast<float>(position), frequency), &sin, &cos);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i != c) continue;  // not an index: these are registers
      rotation.cos[i] = round_bf16(cos);
      rotation.sin[i] = round_bf16(sin);
    }
  }
}

// The norm with its weight, then the rotation. Products apart from sums, as the CPU rounds them: no
// fused multiply-add.
__device__ inline Head norm_and_rotate(const Head& raw, float inverse, const Rotation& rotation,
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
    head.values[0][c] = __fsub_rn(__fmul_rn(x, rotation.cos[c]), __fmul_rn(y, rotation.sin[c]));
    head.values[1][c] = __fadd_rn(__fmul_rn(y, rotation.cos[c]), __fmul_rn(x, rotation.sin[c]));
  }
  return head;
}

}  // namespace tandem::ops::cuda::head_norm
