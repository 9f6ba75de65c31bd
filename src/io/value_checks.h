// Weight values a broken export leaves behind.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"
#include "core/tensor_view.h"

namespace tandem::io {

struct NamedTensor {
  std::string where;  // begins the message
  core::TensorView view;
};

// BF16: no NaN, no infinity. E4M3: no 0x7F, no 0xFF. Other dtypes pass. Reads the bytes once, with
// two threads; reports the first bad value of the first bad tensor.
base::Status check_tensor_values(std::span<const NamedTensor> tensors);

}  // namespace tandem::io
