// Element-wise pieces of the layer.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor_view.h"
#include "ops/context.h"

namespace tandem::ops {

// out = gelu_tanh(gate) * up (gelu_pytorch_tanh), rounded after the gelu and after the product.
// gate, up, out [n, intermediate] F32 or BF16; out may be gate.
void gelu_mul(const Context& context, const core::TensorView& gate, const core::TensorView& up,
              const core::TensorView& out);

// logits = cap * tanh(logits / cap), in place. logits [n, vocab] F32.
void softcap(const Context& context, float cap, const core::TensorView& logits);

// out[i] = x[indices[i]], converted to out's dtype. x [m, dim], out [n, dim], F32 or BF16, rows may
// be strided. An empty index list copies rows in order.
void gather_rows(const Context& context, const core::TensorView& x,
                 std::span<const int32_t> indices, const core::TensorView& out);

}  // namespace tandem::ops
