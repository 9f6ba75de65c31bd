// A file mapped read-only, and whole small files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tandem::io {

// The mapping follows the file: whoever truncates the file while it is mapped makes reads beyond
// its new end fail with SIGBUS. check_unchanged() tells before the reads start; model folders are
// replaced by rename, never rewritten in place (our writers do so), and then the old bytes stay.
class MappedFile {
 public:
  MappedFile() = default;
  // Opens a regular, non-empty file. FIFOs, devices, directories, link loops, and files that are
  // git-LFS pointers or HTML pages are refused as what they are.
  static base::Result<MappedFile> open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  size_t size() const { return size_; }
  const uint8_t* data() const { return data_; }
  std::string_view bytes() const { return {reinterpret_cast<const char*>(data_), size_}; }

  // Fails when the open file has another size than when it was mapped.
  base::Status check_unchanged() const;

  // Tells the system that these bytes, if they are the file's, are not needed soon: they leave this
  // process's memory and may stay in the system's cache. Others are left alone.
  void release_pages(const void* bytes, size_t count) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// The bytes of a regular file of at most `max_bytes`, with the same refusals.
base::Result<std::string> read_whole_file(const std::filesystem::path& path, size_t max_bytes);

}  // namespace tandem::io
