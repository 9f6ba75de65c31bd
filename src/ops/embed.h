// Token embedding rows.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor_view.h"
#include "ops/context.h"

namespace tandem::ops {

// out[i] = table[ids[i]] * scale, the product rounded to out's dtype.
// table [vocab, hidden] BF16 or F32; out [n, hidden] F32 or BF16 (rows may be strided).
// scale: sqrt(hidden) already rounded to BF16 (gemma4_pair: 3840 -> 62.0). ids in [0, vocab).
void embed(const Context& context, std::span<const int32_t> ids, const core::TensorView& table,
           float scale, const core::TensorView& out);

}  // namespace tandem::ops
