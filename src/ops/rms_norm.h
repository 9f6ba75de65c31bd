// RMSNorm of Gemma 4: x * (mean(x^2) + eps)^(-1/2) * w in FP32, the weight as stored (not 1 + w).
#pragma once

#include "core/tensor_view.h"
#include "ops/context.h"

namespace tandem::ops {

// out[r] = rms(x[r]) * weight. x, out [rows, dim] F32 or BF16, same dtype, may be the same memory.
// weight [dim] BF16 or F32, or an empty view (data == nullptr): the scale-less norm of V.
// Heads: pass [n * num_heads, head_dim].
void rms_norm(const Context& context, const core::TensorView& x, const core::TensorView& weight,
              float eps, const core::TensorView& out);

// The end of a sub-block: residual[r] = (residual[r] + rms(branch[r]) * weight) * scale, rounded
// after the norm, after the sum and after the product as the model's BF16 arithmetic does.
// scale is the layer_scalar after the second sub-block, 1 after the first.
void add_rms_norm(const Context& context, const core::TensorView& branch,
                  const core::TensorView& weight, float eps, float scale,
                  const core::TensorView& residual);

}  // namespace tandem::ops
