// Weight values a broken export leaves behind.
#pragma once

#include <cstdint>
#include <functional>
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
// two threads; reports the first bad value of the first bad tensor. `progress` is called on the
// caller's thread now and then, and at the end.
using ReadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;
base::Status check_tensor_values(std::span<const NamedTensor> tensors,
                                 const ReadProgress& progress = {});

}  // namespace tandem::io
