// What a request, a flag and generation_config.json may ask for as repetition penalty: with these
// the logits stay finite in FP32.
#pragma once

namespace tandem::base {

inline constexpr double kMinRepetitionPenalty = 1e-30;
inline constexpr double kMaxRepetitionPenalty = 1e30;

}  // namespace tandem::base
