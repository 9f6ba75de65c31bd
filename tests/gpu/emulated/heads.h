// What kernels of heads find in a row of logits.
#pragma once

#include <cstdint>
#include <span>

#include "ops/cuda/head.h"
#include "ops/cuda/likeliest.h"

namespace tandem::emulated {

// kNotFinite as ops/argmax.h says.
int32_t greedy_token(std::span<const float> logits, std::span<const int32_t> suppressed);
inline std::span<const int32_t> suppressed_ids(const ops::cuda::HeadLogits& head) {
  return {head.suppressed, static_cast<size_t>(head.num_suppressed)};
}

void find_likeliest(std::span<const float> logits, int most, ops::cuda::Likeliest& out);

}  // namespace tandem::emulated
