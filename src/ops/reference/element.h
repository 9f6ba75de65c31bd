// One element or one row of a tensor as FP32, whatever its dtype.
#pragma once

#include <cstdint>
#include <vector>

#include "core/bf16.h"
#include "core/e4m3.h"
#include "core/tensor_view.h"

namespace tandem::ops::reference {

inline float load(const core::TensorView& view, int64_t row, int64_t column) {
  const int64_t i = row * view.row_stride + column;
  switch (view.dtype) {
    case core::DType::kF32:
      return static_cast<const float*>(view.data)[i];
    case core::DType::kBF16:
      return core::to_float(static_cast<const core::BFloat16*>(view.data)[i]);
    case core::DType::kF8E4M3:
      return core::e4m3_to_float(static_cast<const uint8_t*>(view.data)[i]);
    default:
      TANDEM_CHECK_MSG(false, "no FP32 value of {}", core::dtype_name(view.dtype));
  }
  return 0.0F;
}

inline void store(const core::TensorView& view, int64_t row, int64_t column, float value) {
  const int64_t i = row * view.row_stride + column;
  switch (view.dtype) {
    case core::DType::kF32:
      static_cast<float*>(view.data)[i] = value;
      return;
    case core::DType::kBF16:
      static_cast<core::BFloat16*>(view.data)[i] = core::to_bf16(value);
      return;
    case core::DType::kF8E4M3:
      static_cast<uint8_t*>(view.data)[i] = core::float_to_e4m3(value);
      return;
    default:
      TANDEM_CHECK_MSG(false, "cannot store FP32 as {}", core::dtype_name(view.dtype));
  }
}

// What `value` becomes when stored as `dtype` and read back.
inline float rounded(core::DType dtype, float value) {
  return dtype == core::DType::kBF16 ? core::round_to_bf16(value) : value;
}

inline std::vector<float> load_row(const core::TensorView& view, int64_t row) {
  std::vector<float> values(static_cast<size_t>(view.cols()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = load(view, row, static_cast<int64_t>(i));
  return values;
}

}  // namespace tandem::ops::reference
