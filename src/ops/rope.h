// Rotary position embedding, both types of Gemma 4: pairs are (i, i + d/2) over the whole head.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/tensor_view.h"
#include "ops/context.h"

namespace tandem::ops {

// inv_freq[i] = theta^(-2i/head_dim) for the first rotating pairs, 0 for the rest: a zero frequency
// passes its pair through. rotating = head_dim/2 * partial_rotary_factor. Both types divide the
// exponent by the whole head_dim (transformers: rope_type default and proportional).
std::vector<float> rope_inv_freq(int64_t head_dim, double theta, double partial_rotary_factor);

// cos and sin of position * inv_freq, FP32. cos, sin [n, head_dim/2] F32. With `round_bf16` the
// values are rounded to BF16, as transformers does in a BF16 model.
void rope_angles(const Context& context, std::span<const int32_t> positions,
                 std::span<const float> inv_freq, bool round_bf16, const core::TensorView& cos,
                 const core::TensorView& sin);

// In place: x[r, h, i] = x_i cos_i - x_{i+d/2} sin_i; x[r, h, i+d/2] = x_{i+d/2} cos_i + x_i sin_i.
// x [n, num_heads, head_dim] F32 or BF16.
void rope(const Context& context, const core::TensorView& cos, const core::TensorView& sin,
          const core::TensorView& x);

}  // namespace tandem::ops
