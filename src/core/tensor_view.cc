#include "core/tensor_view.h"

#include <vector>

namespace tandem::core {

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.rank(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

TensorView TensorView::slice_rows(int64_t begin, int64_t end) const {
  TANDEM_CHECK_GE(shape.rank(), size_t{1});
  TANDEM_CHECK_LE(begin, end);
  TANDEM_CHECK_LE(end, shape[0]);
  std::vector<int64_t> dims;
  dims.push_back(end - begin);
  for (size_t i = 1; i < shape.rank(); ++i) dims.push_back(shape[i]);
  TensorView view = *this;
  view.shape = Shape(std::span<const int64_t>(dims));
  view.data =
      static_cast<char*>(data) + begin * row_stride * static_cast<int64_t>(dtype_bytes(dtype));
  return view;
}

}  // namespace tandem::core
