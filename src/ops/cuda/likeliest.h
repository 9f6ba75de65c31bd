// The first tokens of a row of logits: what mostly decides what follows it.
#pragma once

#include <cstdint>

namespace tandem::ops::cuda {

inline constexpr int kLikeliest = 128;

struct Likeliest {
  int32_t
      status;     // 1: known; 0: NaN or +inf in the row; -1: not known. Only with 1 the rest counts
  int32_t count;  // fewer than were asked for when that is all
  // Likeliest first and the lower id first among equals; tokens at -inf are none.
  float logits[kLikeliest];
  int32_t ids[kLikeliest];
};

}  // namespace tandem::ops::cuda
