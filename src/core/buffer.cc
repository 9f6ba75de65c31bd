#include "core/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace tandem::core {
namespace {

constexpr size_t kAlignment = 64;  // a cache line, and the widest vector register
// Large areas ask for large pages: a matrix whose rows are read side by side has more small pages
// than a core knows by heart.
constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kHugeFrom = 8 * kHugePage;

// Not an error if the system has none.
void ask_for_huge_pages(void* data, size_t bytes) {
  ::madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
}

}  // namespace

void Buffer::Free::operator()(void* pointer) const {
  std::free(pointer);
}

Buffer::Buffer(DType dtype, Shape shape) : dtype_(dtype), shape_(shape) {
  size_bytes_ = static_cast<size_t>(shape.num_elements()) * dtype_bytes(dtype);
  const bool huge = size_bytes_ >= kHugeFrom;
  const size_t alignment = huge ? kHugePage : kAlignment;
  const size_t padded = (size_bytes_ / kAlignment + 1) * kAlignment;
  void* data = nullptr;
  // Nothing of ours: flags and configs say how much it is.
  if (::posix_memalign(&data, alignment, padded) != 0)
    throw std::runtime_error(fmt::format(
        "memory: expected {} bytes in one piece, got none; use a smaller KV cache, fewer "
        "sequences or rows of a step, or a smaller model",
        padded));
  data_.reset(data);
  if (huge) ask_for_huge_pages(data, padded);
}

void Buffer::fill_bytes(uint8_t value) {
  if (size_bytes_ > 0) std::memset(data_.get(), value, size_bytes_);
}

}  // namespace tandem::core
