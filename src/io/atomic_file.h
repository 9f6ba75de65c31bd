// Files that appear whole or not at all: written under a temporary name, synced, renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/status.h"

namespace tandem::io {

class AtomicFile {
 public:
  // Writes to PATH.partial, or to PATH.2.partial and so on where that is there: two runs may write
  // the same file, and the last one to publish its own counts. Behind a link its target is written;
  // a device, a pipe or a folder is refused.
  static base::Result<AtomicFile> create(const std::filesystem::path& path);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  // Removes the temporary file unless it was published.
  ~AtomicFile();

  const std::filesystem::path& path() const { return path_; }
  base::Status append(const void* bytes, size_t count);
  // After this the content is on the disk, under the temporary name. No more appends.
  base::Status sync_and_close();
  // Gives the file its name; closes first if needed. The rename is durable after sync_folder().
  base::Status publish();

 private:
  AtomicFile() = default;

  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty once published
  int descriptor_ = -1;
};

base::Status sync_folder(const std::filesystem::path& dir);

// Whether a file of that name could be written now: asked before the work whose result it gets.
base::Status check_writable(const std::filesystem::path& path);

// The whole of it for small files.
base::Status write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

}  // namespace tandem::io
