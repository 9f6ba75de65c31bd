// What the kernels over rows share, be the rows few (row_ops.cu) or many (wide_rows.cu).
#pragma once

#include "ops/cuda/packed_linear.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/row_ops.h"

namespace tandem::ops::cuda {

// Four neighbouring columns of a row.
struct Four {
  float v[4] = {};
};

__device__ inline Four unpack(uint2 bits) {
  return {{__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000U),
           __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000U)}};
}

// Values that BF16 can hold.
__device__ inline uint2 pack(const Four& x) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(x.v[0], x.v[1]);
  const __nv_bfloat162 high = __floats2bfloat162_rn(x.v[2], x.v[3]);
  return {*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high)};
}

__device__ inline uint2 load_bits(const uint16_t* source) {
  return *reinterpret_cast<const uint2*>(source);
}
__device__ inline void store_bits(uint16_t* target, const Four& x) {
  *reinterpret_cast<uint2*>(target) = pack(x);
}

__device__ inline Four load_embedding(const EmbedTable& table, int token, int column) {
  const float2 a = load_packed_bf16_pair(table.data, table.set_blocks, token, column);
  const float2 b = load_packed_bf16_pair(table.data, table.set_blocks, token, column + 2);
  return {{round_bf16(a.x * table.scale), round_bf16(a.y * table.scale),
           round_bf16(b.x * table.scale), round_bf16(b.y * table.scale)}};
}

// Of 8 values of BF16.
__device__ inline float sum_of_squares(const uint4& values) {
  float sum = 0.0F;
  for (const uint32_t two : {values.x, values.y, values.z, values.w}) {
    const float low = __uint_as_float(two << 16);
    const float high = __uint_as_float(two & 0xffff0000U);
    sum += low * low + high * high;
  }
  return sum;
}

// bf16(sum * scale): what a product with BF16 output gives.
__device__ inline Four scaled(const float4& sum, float scale) {
  return {{round_bf16(sum.x * scale), round_bf16(sum.y * scale), round_bf16(sum.z * scale),
           round_bf16(sum.w * scale)}};
}

// x * inverse * weight, where the root mean square is 1 / inverse.
__device__ inline Four normalized(const Four& x, float inverse, uint2 weight_bits) {
  const Four weight = unpack(weight_bits);
  Four result;
#pragma unroll
  for (int j = 0; j < 4; ++j) result.v[j] = round_bf16(x.v[j] * inverse * weight.v[j]);
  return result;
}

// The residual `x` and the end of a sub-block.
__device__ inline Four joined(const Four& x, const Four& norm, float layer_scalar) {
  Four result;
#pragma unroll
  for (int j = 0; j < 4; ++j)
    result.v[j] = round_bf16(round_bf16(x.v[j] + norm.v[j]) * layer_scalar);
  return result;
}

// Columns `column` .. + 3 of a row of concat(embedding, state).
__device__ inline Four load_input(const AssistantInput& op, int row, int column) {
  const int state_column = column - op.hidden;
  if (state_column < 0) return load_embedding(op.table, op.tokens[row], column);
  if (op.states == nullptr)
    return scaled(load_sum4(op.state_sums, row, state_column,
                            op.state_sums.num_pieces(state_column / kSetColumns)),
                  op.state_scale);
  const int slot = op.slots == nullptr ? row : op.slots[row];
  if (slot < 0) return {};
  return unpack(load_bits(op.states + static_cast<int64_t>(slot) * op.hidden + state_column));
}

// x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3)), which is gelu with tanh; to about 2^-20 of the
// value, where results are rounded to 2^-9.
__device__ inline float gelu_tanh(float x) {
  constexpr float kTwoSqrtTwoOverPiLog2E = 2.0F * 0.7978845608028654F * 1.4426950408889634F;
  const float inner = kTwoSqrtTwoOverPiLog2E * fmaf(0.044715F * x * x, x, x);
  float share;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(share) : "f"(1.0F + ptx::exp2_approx(-inner)));
  return x * share;
}

template <typename T>
__device__ inline T warp_sum(T value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(0xffffffffU, value, mask);
  return value;
}

}  // namespace tandem::ops::cuda
