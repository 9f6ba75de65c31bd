// Checks of arguments shared by the dispatch files. A failed check is a bug of ours.
#pragma once

#include <string_view>

#include "core/tensor_view.h"

namespace tandem::ops {

inline bool is_activation(const core::TensorView& view) {
  return view.dtype == core::DType::kF32 || view.dtype == core::DType::kBF16;
}

inline void check_activation(std::string_view op, std::string_view name,
                             const core::TensorView& view) {
  TANDEM_CHECK_MSG(is_activation(view), "{}: {}: expected F32 or BF16, got {}", op, name,
                   core::dtype_name(view.dtype));
}

inline void check_shape(std::string_view op, std::string_view name, const core::TensorView& view,
                        const core::Shape& expected) {
  TANDEM_CHECK_MSG(view.shape == expected, "{}: {}: expected shape {}, got {}", op, name,
                   core::to_string(expected), core::to_string(view.shape));
}

inline void check_dtype(std::string_view op, std::string_view name, const core::TensorView& view,
                        core::DType expected) {
  TANDEM_CHECK_MSG(view.dtype == expected, "{}: {}: expected {}, got {}", op, name,
                   core::dtype_name(expected), core::dtype_name(view.dtype));
}

}  // namespace tandem::ops
