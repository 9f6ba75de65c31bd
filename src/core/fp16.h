// IEEE half precision, where a peer's arithmetic goes through it.
#pragma once

namespace tandem::core {

// The float nearest to `value` that a float16 can hold (nearest even, subnormals kept); beyond
// 65504 infinity, as IEEE asks.
inline float round_to_fp16(float value) {
  return static_cast<float>(static_cast<_Float16>(value));
}

}  // namespace tandem::core
