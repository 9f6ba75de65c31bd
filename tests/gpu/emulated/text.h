// What the emulated models say: a function of the tokens before, and of nothing else.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem::emulated {

inline constexpr int kVocab = 391;
inline constexpr int32_t kEndOfText = 1;
inline const std::vector<int32_t> kSuppressed = {5, 77};

// Of no token, and of the same tokens and one more.
inline constexpr uint64_t kNoText = 1469598103934665603ULL;
constexpr uint64_t extend(uint64_t hash, int32_t token) {
  return (hash ^ static_cast<uint64_t>(token + 1)) * 1099511628211ULL + 12345;
}

// [kVocab] logits behind a text: mostly a few likely tokens, at times many that are equal, or none
// that is likelier than others, or a NaN. Valid until the next call.
const std::vector<float>& logits_of(uint64_t hash);

}  // namespace tandem::emulated
