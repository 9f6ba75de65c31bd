// What a product leaves behind: FP32 partial sums, which the next kernel adds in a fixed order,
// scales, and turns into whatever it makes of them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace tandem::ops::cuda {

inline constexpr int kSetColumns = 128;  // output features that one thread block works on at a time
inline constexpr int kGatedGroup = 8;    // features of gate beside the same ones of up

// Where feature `column` of gate, or of up, lies in a product of both: eight features of gate, then
// the same eight of up. The tensor cores leave both in the same thread, which joins them.
__host__ __device__ constexpr int gated_feature(int column, bool up) {
  return column / kGatedGroup * (2 * kGatedGroup) + (up ? kGatedGroup : 0) + column % kGatedGroup;
}

// partial sums [num_sets][max_pieces][num_rows][kSetColumns] FP32. A set's sum over `in` was cut
// where one thread block's share of the weights ended and the next one's began; the cuts depend on
// the weight's shape and the number of thread blocks alone.
struct Partials {
  const float* data = nullptr;
  int num_rows = 8;      // rows of the operand, padding included
  int max_pieces = 1;    // slots per set
  int set_blocks = 1;    // in / 32
  int num_shares = 1;    // thread blocks
  int total_blocks = 1;  // num_sets * set_blocks; times num_shares below 2^32

  // Share i has the blocks share_begin(i) .. share_begin(i + 1) - 1.
  __host__ __device__ int share_begin(int share) const {
    return static_cast<int>(static_cast<unsigned>(total_blocks) * static_cast<unsigned>(share) /
                            static_cast<unsigned>(num_shares));
  }
  __host__ __device__ int share_of(int block) const {
    return static_cast<int>(
        ((static_cast<unsigned>(block) + 1U) * static_cast<unsigned>(num_shares) - 1U) /
        static_cast<unsigned>(total_blocks));
  }
  __host__ __device__ int num_pieces(int set) const {
    const int first = set * set_blocks;
    return share_of(first + set_blocks - 1) - share_of(first) + 1;
  }
};

#ifdef __CUDACC__
// The value at `source`, or zeros without reading it. Not a branch: several of them in a row are
// under way together.
__device__ inline float4 load4_if(bool condition, const float* source) {
  float4 value = {0.0F, 0.0F, 0.0F, 0.0F};
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.s32 p, %5, 0;\n"
      "@p ld.global.v4.f32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "+f"(value.x), "+f"(value.y), "+f"(value.z), "+f"(value.w)
      : "l"(source), "r"(static_cast<int>(condition)));
  return value;
}

// Pieces of one sum on their way, so many at once.
template <int kTogetherIn>
struct PiecesOf {
  static constexpr int kTogether = kTogetherIn;
  float4 parts[kTogether];
  const float* source;
  int64_t stride;
};
using Pieces4 = PiecesOf<8>;

// Starts reading row `row`, output features column .. column + 3 (column % 4 == 0), `pieces` =
// num_pieces(column / kSetColumns).
template <typename Loaded>
__device__ inline Loaded load_pieces4(const Partials& partials, int row, int column, int pieces) {
  const int set = column / kSetColumns;
  Loaded loaded;
  loaded.stride = static_cast<int64_t>(partials.num_rows) * kSetColumns;
  loaded.source =
      partials.data +
      (static_cast<int64_t>(set) * partials.max_pieces * partials.num_rows + row) * kSetColumns +
      column % kSetColumns;
#pragma unroll
  for (int i = 0; i < Loaded::kTogether; ++i)
    loaded.parts[i] = load4_if(i < pieces, loaded.source + i * loaded.stride);
  return loaded;
}

// The unscaled product: pieces are added in order.
template <typename Loaded>
__device__ inline float4 sum_pieces4(const Loaded& loaded, int pieces) {
  float4 sum = loaded.parts[0];
  const auto add = [&sum](const float4& next) {
    sum.x += next.x;
    sum.y += next.y;
    sum.z += next.z;
    sum.w += next.w;
  };
#pragma unroll
  for (int i = 1; i < Loaded::kTogether; ++i)
    if (i < pieces) add(loaded.parts[i]);
  for (int i = Loaded::kTogether; i < pieces; ++i)
    add(*reinterpret_cast<const float4*>(loaded.source + i * loaded.stride));
  return sum;
}

__device__ inline float4 load_sum4(const Partials& partials, int row, int column, int pieces) {
  return sum_pieces4(load_pieces4<Pieces4>(partials, row, column, pieces), pieces);
}
#endif

}  // namespace tandem::ops::cuda
