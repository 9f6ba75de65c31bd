#include "io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace tandem::io {
namespace {

constexpr int kMostNames = 1000;

tl::unexpected<base::Error> write_error(const std::filesystem::path& path, const char* action,
                                        int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return base::make_error(
      full ? base::ErrorCode::kResourceExhausted : base::ErrorCode::kInvalidArgument,
      fmt::format("{}: expected to {}, got: {}", path.string(), action, std::strerror(error)));
}

// The file that a rename may replace: a link's target, and never a device or a pipe, of which root
// would make a file for everyone (/dev/null, /dev/stdout).
base::Result<std::filesystem::path> replaceable(const std::filesystem::path& path) {
  if (path.empty()) return base::invalid("expected the name of a file to write, got an empty one");
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return path;
  if (!std::filesystem::is_regular_file(status))
    return base::invalid("{}: expected a file or nothing of that name, got {}; name a file",
                         path.string(),
                         std::filesystem::is_directory(status) ? "a folder" : "a device or a pipe");
  if (!std::filesystem::is_symlink(std::filesystem::symlink_status(path, error))) return path;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  if (error) return write_error(path, "follow the link", error.value());
  return target;
}

}  // namespace

base::Result<AtomicFile> AtomicFile::create(const std::filesystem::path& path) {
  AtomicFile file;
  TANDEM_ASSIGN_OR_RETURN(file.path_, replaceable(path));
  for (int i = 1; i <= kMostNames; ++i) {
    std::filesystem::path temporary = file.path_;
    temporary += i == 1 ? std::string(".partial") : fmt::format(".{}.partial", i);
    // One that is there is another run's, which writes it now, or somebody's own.
    file.descriptor_ = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file.descriptor_ < 0 && errno == EEXIST && i < kMostNames) continue;
    if (file.descriptor_ < 0) return write_error(temporary, "create the file", errno);
    file.temporary_ = std::move(temporary);
    break;
  }
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept {
  *this = std::move(other);
}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

base::Status AtomicFile::append(const void* bytes, size_t count) {
  const char* next = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t written = ::write(descriptor_, next, count);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return write_error(temporary_, "write", errno);
    next += written;
    count -= static_cast<size_t>(written);
  }
  return {};
}

base::Status AtomicFile::sync_and_close() {
  if (descriptor_ < 0) return {};
  if (::fsync(descriptor_) != 0) return write_error(temporary_, "sync", errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) return write_error(temporary_, "close", errno);
  return {};
}

base::Status AtomicFile::publish() {
  TANDEM_RETURN_IF_ERROR(sync_and_close());
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return write_error(path_, "rename", errno);
  temporary_.clear();
  return {};
}

base::Status sync_folder(const std::filesystem::path& dir) {
  const std::filesystem::path name = dir.empty() ? "." : dir;
  const int descriptor = ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return write_error(name, "open the folder", errno);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  // Some file systems cannot sync folders and say EINVAL: nothing more can be done there.
  if (result != 0 && error != EINVAL) return write_error(name, "sync the folder", error);
  return {};
}

base::Status check_writable(const std::filesystem::path& path) {
  TANDEM_ASSIGN_OR_RETURN([[maybe_unused]] const AtomicFile file, AtomicFile::create(path));
  return {};
}

base::Status write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  TANDEM_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  TANDEM_RETURN_IF_ERROR(file.append(bytes.data(), bytes.size()));
  TANDEM_RETURN_IF_ERROR(file.publish());
  return sync_folder(path.parent_path());
}

}  // namespace tandem::io
