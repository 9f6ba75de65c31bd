// The largest logit of a row: sixteen running maxima with their indices, then the best of them.
#pragma once

#include "ops/cpu/rows_kernel.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

inline ArgmaxResult argmax(const float* row, int64_t begin, int64_t end) {
  constexpr float kInfinity = __builtin_inff();
  const Rows logits{const_cast<float*>(row), 0, false};
  Vec largest = set1(-kInfinity);
  IVec best = set1_int(-1);
  bool finite = true;
  for_lanes(begin, end, [&](int64_t i, int count) TANDEM_LAMBDA {
    Vec value = load_lanes(logits, 0, i, count);
    finite = finite && !any(not_less(value, set1(kInfinity)));
    if (count < kLanes) value = select(lanes_between(0, count), value, set1(-kInfinity));
    const Mask better = less(largest, value);
    largest = select(better, value, largest);
    best = select(better, add(lane_index(), set1_int(static_cast<int32_t>(i))), best);
  });
  float values[kLanes];
  float indices[kLanes];
  store(values, largest);
  store(indices, as_float(best));
  ArgmaxResult result{-1, finite};
  float most = -kInfinity;
  for (int lane = 0; lane < kLanes; ++lane) {
    int32_t index = 0;
    __builtin_memcpy(&index, &indices[lane], sizeof(index));
    const bool earlier = values[lane] == most && index < result.token;
    if (index < 0 || !(values[lane] > most || earlier)) continue;
    most = values[lane];
    result.token = index;
  }
  return result;
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
