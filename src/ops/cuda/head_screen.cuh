// What the kernels of a screened head leave each other (head_product.cu, head_screen.cu,
// head_confirm.cu).
#pragma once

#include "ops/cuda/head_screen.h"

namespace tandem::ops::cuda {

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
};

#ifdef __CUDACC__
// |x| of a row from the sum of its squares, rounded up.
__device__ inline float row_length(float squares) {
  return sqrtf(squares) * 1.001F;
}
#endif

ScreenPlaces screen_places(const HeadScreen& screen);

// The last kernel. operand: of the rows, num_tiles * 8.
void confirm_screened(const Stream& stream, const PackedLinear& head, const ScreenPlaces& places,
                      const void* operand, int num_tiles, const HeadArgmax& argmax);

}  // namespace tandem::ops::cuda
