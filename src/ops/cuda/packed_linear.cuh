// Single elements of a packed BF16 weight: the embedding reads the table that the head is.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace tandem::ops::cuda {

// Columns `column`, `column` + 1 (column even) of row `row` of a packed BF16 weight.
__device__ inline float2 load_packed_bf16_pair(const uint8_t* data, int set_blocks, int row,
                                               int column) {
  const int set = row / 128;
  const int group = row % 128 / 16;
  const int g = row % 8;
  const int upper = row % 16 / 8;
  const int block = column / 32;
  const int pair = column % 32 / 8;  // which of a lane's four pairs of columns
  const int lane = g * 4 + column % 8 / 2;
  const int64_t offset = ((static_cast<int64_t>(set) * set_blocks + block) * 8 + group) * 1024 +
                         pair / 2 * 512 + lane * 16 + (pair % 2 * 2 + upper) * 4;
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(data + offset));
}

}  // namespace tandem::ops::cuda
