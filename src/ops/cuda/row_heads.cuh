// The norms and rotations of a row's heads by one thread block: head_dim / 16 neighbouring lanes
// have a head of 32, 64, 128, 256 or 512 columns. Adds and rounds as head_norm.cuh does.
#pragma once

#include "ops/cuda/kv_store.cuh"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/row_math.cuh"

namespace tandem::ops::cuda::row_heads {

inline constexpr int kThreads = 256;

constexpr bool takes_head_dim(int head_dim) {
  return head_dim >= 32 && head_dim <= 512 && (head_dim & (head_dim - 1)) == 0;
}

// A thread's columns of a head, as they are in memory: eight of the lower half and the same eight
// of the upper half, which are rotated together.
struct HeadBits {
  uint4 halves[2];
};

// `source`: the thread's first column.
__device__ inline HeadBits load_head(const uint16_t* source, int half, bool exists) {
  HeadBits head = {};
  if (!exists) return head;
#pragma unroll
  for (int i = 0; i < 2; ++i) head.halves[i] = *reinterpret_cast<const uint4*>(source + i * half);
  return head;
}

struct Head {
  Eight halves[2];
};

__device__ inline void store_head(const Head& head, uint16_t* target, int half) {
#pragma unroll
  for (int i = 0; i < 2; ++i) *reinterpret_cast<uint4*>(target + i * half) = pack(head.halves[i]);
}

// Keys, or values, at an element of a layer's. The chunk of a prompt holds what a cache of E4M3
// would, as BF16.
template <bool kFp8>
__device__ inline void store_kv(const Head& head, void* rows, int64_t at, bool in_chunk,
                                float scale, int half) {
  if constexpr (!kFp8) return store_head(head, bf16_rows(rows) + at, half);
  const FloatDivisor by = kv_divisor(scale);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float* const x = head.halves[i].v;
    const uint2 codes = {stored_e4m3({x[0], x[1], x[2], x[3]}, by),
                         stored_e4m3({x[4], x[5], x[6], x[7]}, by)};
    if (in_chunk) {
      const uint2 low = ptx::widen_e4m3(codes.x);
      const uint2 high = ptx::widen_e4m3(codes.y);
      *reinterpret_cast<uint4*>(bf16_rows(rows) + at + i * half) = {low.x, low.y, high.x, high.y};
    } else {
      *reinterpret_cast<uint2*>(static_cast<uint8_t*>(rows) + at + i * half) = codes;
    }
  }
}

// cos and sin of a thread's columns, as BF16: a cosine in the upper half of a word.
struct Angles {
  uint32_t words[8];
};

// The angles of the block's row, each worked out once. Every thread of the block calls it.
__device__ inline Angles row_angles(const float* inv_freq, int position, int half, int column) {
  __shared__ __align__(16) uint32_t words[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < half) {
    float sine;
    float cosine;
    sincosf(__fmul_rn(static_cast<float>(position), inv_freq[thread]), &sine, &cosine);
    words[thread] = bf16x2(sine, cosine);
  }
  __syncthreads();
  Angles angles;
#pragma unroll
  for (int j = 0; j < 8; ++j) angles.words[j] = words[column + j];
  return angles;
}

// The norm with its weight, then the rotation; no fused multiply-add, as the CPU rounds.
__device__ inline Head rotated(const Head& raw, float inverse, const HeadBits& weight,
                               const Angles& angles) {
  const Eight x = normalized(raw.halves[0], inverse, weight.halves[0]);
  const Eight y = normalized(raw.halves[1], inverse, weight.halves[1]);
  Head head;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float cosine = high_bf16(angles.words[j]);
    const float sine = low_bf16(angles.words[j]);
    head.halves[0].v[j] = __fsub_rn(__fmul_rn(x.v[j], cosine), __fmul_rn(y.v[j], sine));
    head.halves[1].v[j] = __fadd_rn(__fmul_rn(y.v[j], cosine), __fmul_rn(x.v[j], sine));
  }
  return head;
}

// V: the norm without a weight.
__device__ inline Head plain_norm(const Head& raw, float inverse) {
  Head head;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) head.halves[i].v[j] = raw.halves[i].v[j] * inverse;
  return head;
}

// 1 / rms of a head that `lanes` lanes have. Squares are added as where a lane has four and four
// columns: those of a thread's first and second four apart, over 16 threads, then both. Whole
// warps.
__device__ inline float inverse_rms(const Head& head, int lanes, const ColumnCount& columns,
                                    float eps) {
  float parts[2] = {};
#pragma unroll
  for (int p = 0; p < 2; ++p) {
#pragma unroll
    for (const Eight& half : head.halves)
#pragma unroll
      for (int c = 4 * p; c < 4 * p + 4; ++c) parts[p] = fmaf(half.v[c], half.v[c], parts[p]);
#pragma unroll
    for (int mask = 8; mask > 0; mask /= 2) {
      const float other = __shfl_xor_sync(0xffffffffU, parts[p], mask);
      if (mask < lanes) parts[p] += other;
    }
  }
  float squares = parts[0] + parts[1];
  const float other = __shfl_xor_sync(0xffffffffU, squares, 16);
  if (lanes == 32) squares += other;
  return cuda::inverse_rms(squares, columns, eps);
}

}  // namespace tandem::ops::cuda::row_heads
