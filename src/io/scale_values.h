// Inside of the scale readers: one element of a scale tensor as float.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"

namespace tandem::io {

// F32, BF16 or F16, at any alignment.
float scale_value(const core::TensorView& view, int64_t index);
bool is_scale_dtype(core::DType dtype, bool loose);

}  // namespace tandem::io
