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
  return {{low_bf16(bits.x), high_bf16(bits.x), low_bf16(bits.y), high_bf16(bits.y)}};
}

// Values that BF16 can hold.
__device__ inline uint2 pack(const Four& x) {
  return {bf16x2(x.v[0], x.v[1]), bf16x2(x.v[2], x.v[3])};
}

// Eight of them.
struct Eight {
  float v[8] = {};
};

__device__ inline Eight unpack(const uint4& bits) {
  Eight x;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Four four = unpack(half == 0 ? make_uint2(bits.x, bits.y) : make_uint2(bits.z, bits.w));
#pragma unroll
    for (int j = 0; j < 4; ++j) x.v[4 * half + j] = four.v[j];
  }
  return x;
}

__device__ inline uint4 pack(const Eight& x) {
  const uint2 low = pack(Four{{x.v[0], x.v[1], x.v[2], x.v[3]}});
  const uint2 high = pack(Four{{x.v[4], x.v[5], x.v[6], x.v[7]}});
  return {low.x, low.y, high.x, high.y};
}

// Eight columns of 16 as both kinds of operand have them in E4M3 (operand.cuh), by the two
// neighbouring lanes of these columns: the lower lane returns words 0 and 1, the `upper` one words
// 2 and 3. A word has two columns of each lane, so they exchange what the other one needs. Every
// lane of a warp calls it.
__device__ inline uint2 e4m3_words(const Eight& x, const FloatDivisor& by, bool upper) {
  const auto four = [&](int j) { return e4m3x4(x.v[j], x.v[j + 1], x.v[j + 2], x.v[j + 3], by); };
  const uint32_t low = four(0);
  const uint32_t high = four(4);
  const uint32_t other = __shfl_xor_sync(0xffffffffU, upper ? low : high, 1);
  const uint32_t first = upper ? other : low;
  const uint32_t second = upper ? high : other;
  return {__byte_perm(first, second, 0x5410), __byte_perm(first, second, 0x7632)};
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
    const float low = low_bf16(two);
    const float high = high_bf16(two);
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

__device__ inline Eight normalized(const Eight& x, float inverse, const uint4& weight_bits) {
  const Eight weight = unpack(weight_bits);
  Eight result;
#pragma unroll
  for (int j = 0; j < 8; ++j) result.v[j] = round_bf16(x.v[j] * inverse * weight.v[j]);
  return result;
}

// bf16(a + b), two sums at a time. Rounding to FP32 first, as the CPU does, gives the same: where a
// sum does not fit into FP32 the smaller term is too small to move the larger one.
__device__ inline uint4 added(const uint4& a, const uint4& b) {
  const auto add = [](uint32_t x, uint32_t y) {
    const __nv_bfloat162 sum = __hadd2_rn(*reinterpret_cast<const __nv_bfloat162*>(&x),
                                          *reinterpret_cast<const __nv_bfloat162*>(&y));
    return *reinterpret_cast<const uint32_t*>(&sum);
  };
  return {add(a.x, b.x), add(a.y, b.y), add(a.z, b.z), add(a.w, b.w)};
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

// kRuns runs of eight columns of a row, `stride` apart, each within a set: sums of a product, of
// which the first kTogether pieces are on their way at once and later ones one behind the other.
template <int kRuns, int kTogether>
class EightSums {
 public:
  __device__ EightSums(const Partials& product, int row, int column, int stride,
                       const int (&pieces)[kRuns])
      : piece_stride_(static_cast<int64_t>(product.num_rows) * kSetColumns) {
#pragma unroll
    for (int run = 0; run < kRuns; ++run) {
      const int at = column + run * stride;
      pieces_[run] = pieces[run];
      source_[run] = product.data + at / kSetColumns * product.max_pieces * piece_stride_ +
                     row * kSetColumns + at % kSetColumns;
#pragma unroll
      for (int piece = 0; piece < kTogether; ++piece)
#pragma unroll
        for (int four = 0; four < 2; ++four) fours_[piece][run][four] = load(run, piece, four);
    }
  }
  // In order, as sum_pieces4() does.
  __device__ void add_up() {
#pragma unroll
    for (int piece = 1; piece < kTogether; ++piece)
#pragma unroll
      for (int run = 0; run < kRuns; ++run)
        if (piece < pieces_[run]) add(run, fours_[piece][run]);
    int most = 0;
#pragma unroll
    for (const int pieces : pieces_) most = max(most, pieces);
#pragma unroll 1
    for (int piece = kTogether; piece < most; ++piece)
#pragma unroll
      for (int run = 0; run < kRuns; ++run) {
        const float4 fours[2] = {load(run, piece, 0), load(run, piece, 1)};
        if (piece < pieces_[run]) add(run, fours);
      }
  }
  // bf16(sum * scale), behind add_up().
  __device__ Eight scaled_run(int run, float scale) const {
    Eight x;
#pragma unroll
    for (int four = 0; four < 2; ++four) {
      const Four part = scaled(fours_[0][run][four], scale);
#pragma unroll
      for (int j = 0; j < 4; ++j) x.v[four * 4 + j] = part.v[j];
    }
    return x;
  }

 private:
  __device__ float4 load(int run, int piece, int four) const {
    return load4_if(piece < pieces_[run], source_[run] + piece * piece_stride_ + four * 4);
  }
  __device__ void add(int run, const float4 (&fours)[2]) {
#pragma unroll
    for (int four = 0; four < 2; ++four) {
      float4& sum = fours_[0][run][four];
      const float4& next = fours[four];
      sum = {sum.x + next.x, sum.y + next.y, sum.z + next.z, sum.w + next.w};
    }
  }

  int64_t piece_stride_;
  const float* source_[kRuns];
  int pieces_[kRuns];
  float4 fours_[kTogether][kRuns][2];  // [0]: the sums in the end
};

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
