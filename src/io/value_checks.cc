#include "io/value_checks.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/e4m3.h"

namespace tandem::io {
namespace {

using core::DType;

constexpr int64_t kChunkBytes = int64_t{4} << 20;

bool is_bad(uint16_t bf16_bits) {
  return (bf16_bits & 0x7f80U) == 0x7f80U;  // exponent of infinity and NaN
}
bool is_bad(uint8_t e4m3_bits) {
  return core::e4m3_is_nan(e4m3_bits);
}

// Adding one to the lowest bit of the exponent (BF16) or of the magnitude (E4M3) carries into the
// sign bit exactly when all bits above it are set, which is what bad values have in common.
template <typename T>
struct Carry;
template <>
struct Carry<uint16_t> {
  static constexpr uint64_t kBits = 0x7f80'7f80'7f80'7f80U;
  static constexpr uint64_t kOne = 0x0080'0080'0080'0080U;
  static constexpr uint64_t kCarry = 0x8000'8000'8000'8000U;
};
template <>
struct Carry<uint8_t> {
  static constexpr uint64_t kBits = 0x7f7f'7f7f'7f7f'7f7fU;
  static constexpr uint64_t kOne = 0x0101'0101'0101'0101U;
  static constexpr uint64_t kCarry = 0x8080'8080'8080'8080U;
};

// No early exit: the loop over whole words becomes vector code that runs at memory speed.
template <typename T>
bool any_bad(const T* values, int64_t count) {
  constexpr int64_t kPerWord = sizeof(uint64_t) / sizeof(T);
  const int64_t words = count / kPerWord;
  uint64_t sums = 0;
  for (int64_t i = 0; i < words; ++i) {
    uint64_t word = 0;
    std::memcpy(&word, values + i * kPerWord, sizeof(word));
    sums |= (word & Carry<T>::kBits) + Carry<T>::kOne;
  }
  bool found = (sums & Carry<T>::kCarry) != 0;
  for (int64_t i = words * kPerWord; i < count; ++i) found = found || is_bad(values[i]);
  return found;
}

template <typename T>
int64_t first_bad(const T* values, int64_t count) {
  constexpr int64_t kBlock = 4096;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = std::min(kBlock, count - begin);
    if (!any_bad(values + begin, size)) continue;
    return std::find_if(values + begin, values + begin + size, [](T v) { return is_bad(v); }) -
           values;
  }
  return -1;
}

struct Chunk {
  size_t tensor = 0;
  int64_t begin = 0;  // elements
  int64_t count = 0;
};

// Elements of the chunk, counted from the tensor's first; -1 when all are good.
int64_t first_bad_in(const core::TensorView& view, const Chunk& chunk) {
  int64_t found = -1;
  if (view.dtype == DType::kBF16)
    found = first_bad(static_cast<const uint16_t*>(view.data) + chunk.begin, chunk.count);
  else
    found = first_bad(static_cast<const uint8_t*>(view.data) + chunk.begin, chunk.count);
  return found < 0 ? -1 : chunk.begin + found;
}

std::vector<Chunk> split(std::span<const NamedTensor> tensors) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const core::TensorView& view = tensors[i].view;
    if (view.dtype != DType::kBF16 && view.dtype != DType::kF8E4M3) continue;
    const int64_t step = kChunkBytes / static_cast<int64_t>(core::dtype_bytes(view.dtype));
    const int64_t total = view.shape.num_elements();
    for (int64_t begin = 0; begin < total; begin += step)
      chunks.push_back({i, begin, std::min(step, total - begin)});
  }
  return chunks;
}

struct Finding {
  size_t chunk = 0;
  int64_t element = 0;
};

std::string describe(const core::TensorView& view, int64_t element) {
  if (view.dtype == DType::kF8E4M3)
    return fmt::format("the NaN byte {:#04x}", static_cast<const uint8_t*>(view.data)[element]);
  const uint16_t bits = static_cast<const uint16_t*>(view.data)[element];
  const bool infinite = (bits & 0x7fU) == 0;
  return infinite ? (bits & 0x8000U) != 0 ? "-infinity" : "infinity" : "NaN";
}

}  // namespace

base::Status check_tensor_values(std::span<const NamedTensor> tensors,
                                 const ReadProgress& progress) {
  const std::vector<Chunk> chunks = split(tensors);
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::optional<Finding> first;
  // Chunks are taken in order and nearly all are full: their number is progress enough.
  const auto total_bytes = static_cast<int64_t>(chunks.size()) * kChunkBytes;
  const auto work = [&](bool reports) {
    for (size_t i = next++; i < chunks.size(); i = next++) {
      if (reports && progress) progress(static_cast<int64_t>(i) * kChunkBytes, total_bytes);
      const int64_t element = first_bad_in(tensors[chunks[i].tensor].view, chunks[i]);
      if (element < 0) continue;
      const std::lock_guard lock(mutex);
      if (!first || i < first->chunk) first = Finding{i, element};
      next = chunks.size();  // earlier chunks are already taken and will still report
    }
  };
  std::thread helper;
  if (chunks.size() > 1) helper = std::thread(work, false);
  work(true);
  if (helper.joinable()) helper.join();
  if (progress) progress(total_bytes, total_bytes);
  if (!first) return {};
  const NamedTensor& tensor = tensors[chunks[first->chunk].tensor];
  return base::invalid("{}: expected finite {} weights, got {} at element {}; the export is broken",
                       tensor.where, core::dtype_name(tensor.view.dtype),
                       describe(tensor.view, first->element), first->element);
}

}  // namespace tandem::io
