// Greedy choice.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor_view.h"
#include "ops/context.h"

namespace tandem::ops {

inline constexpr int32_t kNotFinite = -1;

// tokens[r] = index of the largest logit of row r, the lowest index among equals, skipping
// `suppressed` ids (sorted or not) and logits of -inf; kNotFinite if the row holds NaN or +inf
// (suppressed or not), or has no candidate left.
// logits [n, vocab] F32.
void argmax(const Context& context, const core::TensorView& logits,
            std::span<const int32_t> suppressed, std::span<int32_t> tokens);

}  // namespace tandem::ops
