// What product_ptx.cuh, attention_ptx.cuh and wide_ptx.cuh say by wgmma, said by mma.sync, for
// cards without the former (PTX ISA 9.0). A warp has its 16 of the warpgroup's 64 output rows, in
// the same registers; the right side is read from where the descriptor says. A product is over when
// it returns, so there is nothing to wait for, and warps need not meet.
#pragma once

#include <cstdint>

#include "ops/cuda/ptx.cuh"

namespace tandem::ops::cuda::ptx {

inline __device__ void warpgroup_fence() {}
inline __device__ void warpgroup_commit() {}
template <int kPending>
__device__ inline void warpgroup_wait() {}

namespace mma {

// A descriptor's address, and its step from one group of eight rows to the next.
__device__ inline uint32_t address_of(uint64_t matrix) {
  return (static_cast<uint32_t>(matrix) & 0x3fffU) << 4;
}
__device__ inline uint32_t group_bytes_of(uint64_t matrix) {
  return (static_cast<uint32_t>(matrix >> 32) & 0x3fffU) << 4;
}
// Where a byte of a matrix lies whose 16-byte chunks are exchanged (matrix_of()).
__device__ inline uint32_t exchanged(uint32_t address) {
  return address ^ (address >> 3 & 0x70U);
}

// d += a b: 16 x 32 by 32 x 8, 16 x 16 by 16 x 8.
__device__ inline void multiply_e4m3(float* d, const uint4& a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
__device__ inline void multiply_bf16(float* d, const uint4& a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// visit(d of a tile, b0, b1) for every eight columns; place(tile, half of the summed dimension,
// row) is where 16 bytes of one column begin.
template <int kRegisters, typename Place, typename Visit>
__device__ inline void for_tiles(float (&d)[kRegisters], const Place& place, const Visit& visit) {
  constexpr int kTiles = kRegisters / 4;
  const uint32_t lane = threadIdx.x % 32;
#pragma unroll
  for (uint32_t tile = 0; tile + 1 < kTiles; tile += 2) {
    const uint4 b = load_four(place(tile + lane / 16, lane / 8 % 2, lane % 8));
    visit(&d[tile * 4], b.x, b.y);
    visit(&d[tile * 4 + 4], b.z, b.w);
  }
  if constexpr (kTiles % 2 == 1) {
    const uint2 b = load_two(place(kTiles - 1, lane / 8 % 2, lane % 8));
    visit(&d[kRegisters - 4], b.x, b.y);
  }
}

// Rows as rows_of() describes them.
struct PlainRows {
  uint32_t address, group_bytes;
  __device__ explicit PlainRows(uint64_t matrix)
      : address(address_of(matrix)), group_bytes(group_bytes_of(matrix)) {}
  __device__ uint32_t operator()(uint32_t tile, uint32_t half, uint32_t row) const {
    return address + tile * group_bytes + half * 128 + row * 16;
  }
};
// As matrix_of() does.
struct ExchangedRows {
  uint32_t address, group_bytes;
  __device__ explicit ExchangedRows(uint64_t matrix)
      : address(address_of(matrix)), group_bytes(group_bytes_of(matrix)) {}
  __device__ uint32_t operator()(uint32_t tile, uint32_t half, uint32_t row) const {
    return exchanged(address + tile * group_bytes + row * 128 + half * 16);
  }
};

template <int kRegisters>
__device__ inline void clear_unless(int keep, float (&d)[kRegisters]) {
  if (keep != 0) return;
#pragma unroll
  for (float& value : d) value = 0.0F;
}

// This warp's 16 of 64 rows by 16 columns; with kRows the rows are contiguous, not the columns.
template <int kRows>
__device__ inline uint4 load_left(uint64_t matrix) {
  const ExchangedRows place(matrix);
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t warp = threadIdx.x / 32 % 4;
  const uint32_t upper = lane / 8 % 2;  // rows 8 .. 15
  if constexpr (kRows == 0) return load_four(place(warp * 2 + upper, lane / 16, lane % 8));
  return load_four<true>(place(lane / 16, warp * 2 + upper, lane % 8));
}

}  // namespace mma

// The products of product_ptx.cuh: rows as rows_of() describes them.
template <int kRegisters>
__device__ inline void wgmma_e4m3(float (&d)[kRegisters], const uint4& a, uint64_t b, int add) {
  mma::clear_unless(add, d);
  mma::for_tiles(d, mma::PlainRows(b), [&](float* tile, uint32_t b0, uint32_t b1) {
    mma::multiply_e4m3(tile, a, b0, b1);
  });
}
template <int kRegisters>
__device__ inline void wgmma_bf16_inputs(float (&d)[kRegisters], const uint4& a, uint64_t b) {
  mma::for_tiles(d, mma::PlainRows(b), [&](float* tile, uint32_t b0, uint32_t b1) {
    mma::multiply_bf16(tile, a, b0, b1);
  });
}

// The products of attention_ptx.cuh: matrices as matrix_of() describes them.
template <int kRows, int kRegisters>
__device__ inline void wgmma_pairs(float (&d)[kRegisters], uint64_t a, uint64_t b, int add) {
  mma::clear_unless(add, d);
  const uint4 left = mma::load_left<kRows>(a);
  mma::for_tiles(d, mma::ExchangedRows(b), [&](float* tile, uint32_t b0, uint32_t b1) {
    mma::multiply_bf16(tile, left, b0, b1);
  });
}
template <int kRegisters>
__device__ inline void wgmma_ones(float (&d)[kRegisters], uint64_t b, int add) {
  constexpr uint32_t kOnes = 0x3f803f80;
  mma::clear_unless(add, d);
  mma::for_tiles(d, mma::ExchangedRows(b), [&](float* tile, uint32_t b0, uint32_t b1) {
    mma::multiply_bf16(tile, uint4{kOnes, kOnes, kOnes, kOnes}, b0, b1);
  });
}
template <int kRegisters>
__device__ inline void wgmma_codes(float (&d)[kRegisters], const uint4& a, uint64_t b, int add) {
  mma::clear_unless(add, d);
  mma::for_tiles(d, mma::ExchangedRows(b), [&](float* tile, uint32_t b0, uint32_t b1) {
    mma::multiply_e4m3(tile, a, b0, b1);
  });
}
template <int kRegisters>
__device__ inline void wgmma_codes(float (&d)[kRegisters], uint64_t a, uint64_t b, int add) {
  wgmma_codes(d, mma::load_left<0>(a), b, add);
}

// Of kernels for prompts, which such cards do not run (device.h).
template <int kRegisters, typename Left>
__device__ inline void wgmma_bf16(float (&)[kRegisters], const Left&, uint64_t, int) {
  __trap();
}
template <int kRegisters, typename Left>
__device__ inline void wgmma_bf16_rows(float (&)[kRegisters], Left, uint64_t) {
  __trap();
}

}  // namespace tandem::ops::cuda::ptx
