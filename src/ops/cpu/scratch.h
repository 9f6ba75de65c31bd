// Memory that a thread keeps between ops.
#pragma once

#include <cstdint>

#include "core/tensor_view.h"
#include "ops/cpu/kernels.h"

namespace tandem::ops::cpu {

enum class ScratchUse { kRows, kRowScales, kPairs, kPanel, kAttention };

// At least `count` floats of this thread, one area per use; holds until the next call with the same
// use. Contents are not defined.
float* scratch(ScratchUse use, int64_t count);

inline Rows rows_of(const core::TensorView& view) {
  return Rows{view.data, view.row_stride, view.dtype == core::DType::kBF16};
}

}  // namespace tandem::ops::cpu
