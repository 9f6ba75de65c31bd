#include "core/buffer.h"

#include <cstdlib>
#include <cstring>

namespace tandem::core {

void Buffer::Free::operator()(void* pointer) const {
  std::free(pointer);
}

Buffer::Buffer(DType dtype, Shape shape) : dtype_(dtype), shape_(shape) {
  constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register
  size_bytes_ = static_cast<size_t>(shape.num_elements()) * dtype_bytes(dtype);
  const size_t padded = (size_bytes_ / kAlignment + 1) * kAlignment;
  data_.reset(std::aligned_alloc(kAlignment, padded));
  TANDEM_CHECK_MSG(data_ != nullptr, "out of memory for {} bytes", padded);
}

void Buffer::fill_bytes(uint8_t value) {
  if (size_bytes_ > 0) std::memset(data_.get(), value, size_bytes_);
}

}  // namespace tandem::core
