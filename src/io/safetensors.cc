#include "io/safetensors.h"

#include <bit>
#include <cstring>

namespace tandem::io {
namespace {

constexpr uint64_t kPrefixBytes = 8;

uint64_t read_little_endian(const uint8_t* bytes) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t value = 0;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

}  // namespace

base::Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile result;
  TANDEM_ASSIGN_OR_RETURN(result.file_, MappedFile::open(path));
  const std::string where = path.string();
  const MappedFile& file = result.file_;
  if (file.size() < kPrefixBytes)
    return base::invalid("{}: expected a safetensors file of at least {} bytes, got {}", where,
                         kPrefixBytes, file.size());
  const uint64_t header_bytes = read_little_endian(file.data());
  if (header_bytes > kMaxSafetensorsHeaderBytes)
    return base::invalid(
        "{}: expected a safetensors header of at most {} bytes, got a length of {}; is this a "
        "safetensors file?",
        where, kMaxSafetensorsHeaderBytes, header_bytes);
  if (header_bytes > file.size() - kPrefixBytes)
    return base::invalid(
        "{}: expected a header of {} bytes, got a file of only {}; the file is truncated", where,
        header_bytes, file.size());
  result.payload_begin_ = kPrefixBytes + header_bytes;
  TANDEM_ASSIGN_OR_RETURN(result.header_,
                          parse_safetensors_header(file.bytes().substr(kPrefixBytes, header_bytes),
                                                   file.size() - result.payload_begin_, where));
  TANDEM_RETURN_IF_ERROR(file.check_unchanged());
  return result;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  for (const SafetensorsEntry& entry : header_.entries)
    if (entry.name == name) return &entry;
  return nullptr;
}

core::TensorView SafetensorsFile::view(const SafetensorsEntry& entry) const {
  // Views are read-only by convention; the pages are mapped without write permission.
  void* data = const_cast<uint8_t*>(file_.data()) + payload_begin_ + entry.begin;
  return {data, entry.dtype, entry.shape};
}

bool is_aligned(const core::TensorView& view) {
  return std::bit_cast<uintptr_t>(view.data) % core::dtype_bytes(view.dtype) == 0;
}

}  // namespace tandem::io
