// What the two kernels of a screened head leave each other (head_product.cu, head_confirm.cu).
#pragma once

#include "ops/cuda/head_screen.h"

namespace tandem::ops::cuda {

struct ScreenPlaces {
  float* logits = nullptr;  // [8][columns] as screened, suppressed ids too
  int columns = 0;
  const float* errors = nullptr;  // [columns]
  uint32_t* lower =
      nullptr;  // [8] ordered(): no token that comes first has a smaller logit; 0: none
  float* lengths = nullptr;  // [8] |x| of each row, rounded up
  uint8_t* operand =
      nullptr;  // [8, in] BF16 as an operand, where the screen's kernel made the rows
};

ScreenPlaces screen_places(const HeadScreen& screen);

// The second kernel. operand: of the rows, 8.
void confirm_screened(const Stream& stream, const PackedLinear& head, const ScreenPlaces& places,
                      const void* operand, const HeadArgmax& argmax);

}  // namespace tandem::ops::cuda
