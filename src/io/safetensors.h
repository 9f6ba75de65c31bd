// One safetensors file, mapped: 8 bytes little-endian header length, a JSON header, the payload.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/tensor_view.h"
#include "io/mapped_file.h"

namespace tandem::io {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

struct SafetensorsEntry {
  std::string name;
  core::DType dtype = core::DType::kF32;
  core::Shape shape;
  uint64_t begin = 0;  // bytes into the payload
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsEntry> entries;  // in payload order
};

// Checks everything the header can get wrong: JSON, duplicate names, dtypes, shapes, and that the
// tensors fill `payload_bytes` exactly, without gap or overlap. `where` begins each message.
base::Result<SafetensorsHeader> parse_safetensors_header(std::string_view header,
                                                         uint64_t payload_bytes,
                                                         const std::string& where);

class SafetensorsFile {
 public:
  static base::Result<SafetensorsFile> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  uint64_t payload_bytes() const { return file_.size() - payload_begin_; }

  // The entry of a name, or nullptr.
  const SafetensorsEntry* find(std::string_view name) const;
  // Points into the mapped file, which need not align it: see is_aligned.
  core::TensorView view(const SafetensorsEntry& entry) const;
  base::Status check_unchanged() const { return file_.check_unchanged(); }
  void release_pages(const void* bytes, size_t count) const { file_.release_pages(bytes, count); }

 private:
  MappedFile file_;
  SafetensorsHeader header_;
  uint64_t payload_begin_ = 0;
};

// Whether the view's address suits its dtype; the format does not promise it.
bool is_aligned(const core::TensorView& view);

}  // namespace tandem::io
