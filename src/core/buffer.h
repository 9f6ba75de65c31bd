// Owned, 64-byte aligned host memory with a dtype and a shape.
#pragma once

#include <cstddef>
#include <memory>

#include "core/tensor_view.h"

namespace tandem::core {

class Buffer {
 public:
  Buffer() = default;
  // Uninitialised; large sizes are mapped lazily by the system. Throws what says so when the system
  // does not give as much.
  Buffer(DType dtype, Shape shape);

  TensorView view() const { return TensorView(data_.get(), dtype_, shape_); }
  // The first `rows` rows: activation buffers are allocated once for the largest batch.
  TensorView rows(int64_t rows) const { return view().slice_rows(0, rows); }
  void* data() const { return data_.get(); }
  size_t size_bytes() const { return size_bytes_; }
  bool empty() const { return data_ == nullptr; }
  void fill_bytes(uint8_t value);

 private:
  struct Free {
    void operator()(void* pointer) const;
  };
  std::unique_ptr<void, Free> data_;
  DType dtype_ = DType::kF32;
  Shape shape_;
  size_t size_bytes_ = 0;
};

}  // namespace tandem::core
