// A tensor someone else owns: dtype, shape and a pointer; rows are contiguous, except that the
// outermost dimension may have a larger stride. No mathematics here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/check.h"
#include "core/bf16.h"
#include "core/dtype.h"

namespace tandem::core {

inline constexpr size_t kMaxRank = 4;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    TANDEM_CHECK_LE(dims.size(), kMaxRank);
    for (const int64_t dim : dims) dims_[rank_++] = dim;
  }
  explicit Shape(std::span<const int64_t> dims) {
    TANDEM_CHECK_LE(dims.size(), kMaxRank);
    for (const int64_t dim : dims) dims_[rank_++] = dim;
  }

  size_t rank() const { return rank_; }
  int64_t operator[](size_t i) const { return dims_[i]; }
  int64_t num_elements() const {
    int64_t product = 1;
    for (size_t i = 0; i < rank_; ++i) product *= dims_[i];
    return product;
  }
  bool operator==(const Shape& other) const = default;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  size_t rank_ = 0;
};

// "[3, 4]", the form of error messages.
std::string to_string(const Shape& shape);

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};

// View of writable or (by convention of the callee's const&) read-only memory.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  int64_t row_stride = 0;  // elements between consecutive outermost rows

  TensorView() = default;
  TensorView(void* data_in, DType dtype_in, Shape shape_in)
      : data(data_in), dtype(dtype_in), shape(shape_in) {
    row_stride = shape.rank() == 0 || shape[0] == 0 ? 1 : shape.num_elements() / shape[0];
  }

  int64_t rows() const { return shape.rank() == 0 ? 1 : shape[0]; }
  int64_t cols() const { return rows() == 0 ? 0 : shape.num_elements() / rows(); }

  // Typed pointer to row r; checks the dtype.
  template <typename T>
  T* row(int64_t r) const {
    TANDEM_CHECK(DTypeOf<T>::value == dtype);
    return static_cast<T*>(data) + r * row_stride;
  }
  template <typename T>
  T* ptr() const {
    return row<T>(0);
  }
  // Rows [begin, end) of the outermost dimension.
  TensorView slice_rows(int64_t begin, int64_t end) const;
};

}  // namespace tandem::core
