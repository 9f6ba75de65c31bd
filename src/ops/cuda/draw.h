// The tokens of rows whose likeliest tokens are known: what sampling::Sampler::choose() gives where
// a sampler is_plain(), decided on the device. Same numbers, but for the last bits of logarithms
// and of sums: where those could decide, the host does.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/likeliest.h"

namespace tandem::ops::cuda {

inline constexpr int32_t kUndecided = -2;

// How a sequence chooses; sampling/params.h.
struct DrawRules {
  uint64_t seed = 0;
  double temperature = 0.0;  // 0: greedy, and nothing else counts
  double top_p = 1.0;
  double min_p_depth = 0.0;  // sampling::min_p_depth()
  int32_t top_k = 0;         // at least 1, with the suppressed ids at most kLikeliest
  int32_t unused = 0;
};

struct DrawTokens {
  int num_rows = 0;
  const void* likeliest = nullptr;      // of row r a Likeliest at byte r * stride, in a first place
  size_t stride = sizeof(Likeliest);    // of at least top_k + num_suppressed tokens
  const int32_t* sequences = nullptr;   // [num_rows] row of `rules`; -1: nothing is chosen
  const int32_t* positions = nullptr;   // [num_rows] of the row: what is drawn comes behind it
  const DrawRules* rules = nullptr;     // [num_sequences]
  const int32_t* suppressed = nullptr;  // [num_suppressed], never chosen
  int num_suppressed = 0;
  // Scores and shares of the weight that are closer than this are not told apart.
  double slack = 1e-10;
  // [num_rows] -1: not finite, or nothing may be chosen; kUndecided.
  int32_t* tokens = nullptr;
};
void draw_tokens(const Stream& stream, const DrawTokens& op);

}  // namespace tandem::ops::cuda
