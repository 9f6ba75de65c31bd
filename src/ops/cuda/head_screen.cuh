// What the kernels of a screened head leave each other (head_product.cu, head_screen.cu,
// head_confirm.cu).
#pragma once

#include "ops/cuda/head_screen.h"
#ifdef __CUDACC__
#include "ops/cuda/row_math.cuh"
#endif

namespace tandem::ops::cuda {

// Of a row; sums with a longer one could overflow, and everybody is confirmed.
inline constexpr float kMostScreenedLength = 1e20F;

struct ScreenPlaces {
  int columns = 0;
  const float* scales = nullptr;  // [columns]
  const float* errors = nullptr;  // [columns]
  // Of each row, [kMaxProductRows]. ordered(): no token that comes first has a smaller logit; 0:
  // none. And |x|, rounded up.
  uint32_t* lower = nullptr;
  float* lengths = nullptr;
  // Up to eight rows: [8][columns] as screened, suppressed ids too; and the rows as an operand
  // [8, in], where the screen's kernel made them.
  float* logits = nullptr;
  uint8_t* operand = nullptr;
  // More rows: the product with the screen, unscaled, and the largest logit of each set and row,
  // [num_sets][kMaxProductRows], NaN if there is one.
  Partials sums;
  float* largest = nullptr;
  // Or who may come first, [num_shares][room], how many they are, 0 at rest, and what tells thread
  // blocks how long rows are: the bits of lengths + 1, 0 at rest.
  int32_t* ids = nullptr;
  int room = 0;
  uint32_t* counts = nullptr;
  uint32_t* told_lengths = nullptr;
  bool lists = false;
};

#ifdef __CUDACC__
// |x| of a row from the sum of its squares, rounded up.
__device__ inline float row_length(float squares) {
  return sqrtf(squares) * 1.001F;
}
// |x| of a row of an operand of num_tiles tiles and set_blocks * 32 inputs, by a warp.
__device__ inline float operand_length(const uint8_t* operand, int num_tiles, int set_blocks,
                                       int row, int lane) {
  const uint8_t* const first = operand + row / 8 * 512 + row % 8 * 16;
  float squares = 0.0F;
#pragma unroll 4
  for (int i = lane; i < set_blocks * 4; i += 32) {  // 8 inputs each
    squares += sum_of_squares(__ldcg(reinterpret_cast<const uint4*>(
        first + static_cast<int64_t>(i / 4) * num_tiles * 512 + i % 4 * 128)));
  }
  return row_length(warp_sum(squares));
}
#endif

ScreenPlaces screen_places(const HeadScreen& screen);
// Most ids that a thread block confirms: those of every num_shares-th set.
inline int ids_of_share(const PackedLinear& screen) {
  return (screen.num_sets + screen.num_shares - 1) / screen.num_shares * kSetColumns;
}

// The first kernel of up to eight rows. tokens and scratch of `argmax` count for nothing. Gives the
// places of what it leaves.
ScreenPlaces screen_head(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                         const SideProduct& side, const void* operand, const HeadArgmax& argmax);
ScreenPlaces screen_head(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                         const SideProduct& side, const NormedRows& rows, const HeadArgmax& argmax);

// The first kernel of several tiles, where the screen's sets belong to one share each: leaves ids.
bool lists_rows(const PackedLinear& screen, const HeadLogits& logits);
void list_screened(const Stream& stream, const PackedLinear& screen, const ScreenPlaces& places,
                   const void* operand, int num_tiles, const HeadLogits& logits);

// The last kernel. operand: of the rows, num_tiles * 8.
void confirm_screened(const Stream& stream, const PackedLinear& head, const ScreenPlaces& places,
                      const void* operand, int num_tiles, const HeadArgmax& argmax);

}  // namespace tandem::ops::cuda
