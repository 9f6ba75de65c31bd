#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace tandem::io {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

struct OpenedFile {
  Descriptor descriptor;
  size_t size = 0;
};

tl::unexpected<base::Error> open_error(const std::filesystem::path& path, int error) {
  const std::string name = path.string();
  if (error == ENOENT)
    return base::make_error(base::ErrorCode::kNotFound,
                            fmt::format("{}: expected a file, got nothing of that name", name));
  if (error == ELOOP)
    return base::invalid("{}: expected a file, got a loop of symbolic links", name);
  return base::invalid("{}: expected a readable file, got: {}", name, std::strerror(error));
}

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

base::Result<OpenedFile> open_regular(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO without a writer must not wait.
  Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.get() < 0) return open_error(path, errno);
  struct stat info{};
  if (::fstat(descriptor.get(), &info) != 0) return open_error(path, errno);
  if (!S_ISREG(info.st_mode))
    return base::invalid("{}: expected a file, got {}", path.string(), kind_of(info.st_mode));
  if (info.st_size == 0)
    return base::invalid("{}: expected a file with content, got an empty file", path.string());
  return OpenedFile{std::move(descriptor), static_cast<size_t>(info.st_size)};
}

bool starts_with_ignoring_case(std::string_view text, std::string_view lower) {
  if (text.size() < lower.size()) return false;
  for (size_t i = 0; i < lower.size(); ++i)
    if ((text[i] >= 'A' && text[i] <= 'Z' ? text[i] + ('a' - 'A') : text[i]) != lower[i])
      return false;
  return true;
}

// Downloads that went wrong: what is there instead of the file.
base::Status check_is_payload(const std::filesystem::path& path, std::string_view head) {
  if (head.starts_with("version https://git-lfs"))
    return base::invalid(
        "{}: expected the file itself, got a git-LFS pointer to it; run `git lfs pull` in the "
        "model folder",
        path.string());
  const size_t begin = head.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  const std::string_view text = head.substr(begin);
  if (starts_with_ignoring_case(text, "<!doctype") || starts_with_ignoring_case(text, "<html"))
    return base::invalid(
        "{}: expected the file itself, got an HTML page (a failed download?); download it again",
        path.string());
  return {};
}

constexpr size_t kHeadBytes = 256;

}  // namespace

base::Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  TANDEM_ASSIGN_OR_RETURN(OpenedFile opened, open_regular(path));
  void* data = ::mmap(nullptr, opened.size, PROT_READ, MAP_SHARED, opened.descriptor.get(), 0);
  if (data == MAP_FAILED)
    return base::make_error(base::ErrorCode::kResourceExhausted,
                            fmt::format("{}: expected to map {} bytes, got: {}", path.string(),
                                        opened.size, std::strerror(errno)));
  // Where kernel and file system can, what is read from the disk from now on lies in large pages:
  // cores find weights faster. Not an error elsewhere.
  ::madvise(data, opened.size, MADV_HUGEPAGE);
  MappedFile file;
  file.path_ = path;
  file.descriptor_ = opened.descriptor.release();
  file.data_ = static_cast<const uint8_t*>(data);
  file.size_ = opened.size;
  TANDEM_RETURN_IF_ERROR(check_is_payload(path, file.bytes().substr(0, kHeadBytes)));
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
  if (descriptor_ >= 0) ::close(descriptor_);
}

base::Status MappedFile::check_unchanged() const {
  struct stat info{};
  if (::fstat(descriptor_, &info) != 0)
    return base::invalid("{}: expected an open file, got: {}", path_.string(),
                         std::strerror(errno));
  if (static_cast<size_t>(info.st_size) != size_)
    return base::invalid("{}: expected {} bytes as when it was opened, got {}; the file changed",
                         path_.string(), size_, info.st_size);
  return {};
}

void MappedFile::release_pages(const void* bytes, size_t count) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes);
  const auto map_begin = reinterpret_cast<uintptr_t>(data_);
  if (begin < map_begin || begin + count > map_begin + size_) return;
  // The mapping begins at a page, so whole pages inside the range are inside the mapping.
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + count) / page * page;
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

base::Result<std::string> read_whole_file(const std::filesystem::path& path, size_t max_bytes) {
  TANDEM_ASSIGN_OR_RETURN(const OpenedFile opened, open_regular(path));
  if (opened.size > max_bytes)
    return base::invalid("{}: expected at most {} bytes, got {}", path.string(), max_bytes,
                         opened.size);
  std::string text(opened.size, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::read(opened.descriptor.get(), text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return open_error(path, errno);
    if (count == 0) break;  // shrunk since fstat: the content decides
    done += static_cast<size_t>(count);
  }
  text.resize(done);
  TANDEM_RETURN_IF_ERROR(check_is_payload(path, std::string_view(text).substr(0, kHeadBytes)));
  return text;
}

}  // namespace tandem::io
