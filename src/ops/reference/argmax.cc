#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/reference/reference.h"

namespace tandem::ops::reference {

void argmax(const core::TensorView& logits, std::span<const int32_t> suppressed,
            std::span<int32_t> tokens) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int64_t r = 0; r < logits.rows(); ++r) {
    const float* row = logits.row<float>(r);
    float largest = -kInfinity;
    int32_t best = kNotFinite;
    bool finite = true;
    for (int32_t i = 0; i < logits.cols(); ++i) {
      finite = finite && row[i] < kInfinity;
      const bool skip = std::find(suppressed.begin(), suppressed.end(), i) != suppressed.end();
      if (skip || !(row[i] > largest)) continue;
      largest = row[i];
      best = i;
    }
    tokens[static_cast<size_t>(r)] = finite ? best : kNotFinite;
  }
}

}  // namespace tandem::ops::reference
