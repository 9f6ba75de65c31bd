#include "quantize/output_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "io/atomic_file.h"
#include "io/checkpoint.h"

namespace tandem::quantize {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";
constexpr const char* kHeldConfig = "config.json.partial";
// Says whose folder it is, for people and for the next run.
constexpr const char* kMarker = "INCOMPLETE";
constexpr std::string_view kMarkerText =
    "tandem quantize was interrupted while it wrote this folder. It is safe to delete.\n";
// In an old folder that was put aside; one of that name without it belongs to somebody else.
constexpr const char* kReplacedMarker = "REPLACED";
constexpr std::string_view kReplacedText =
    "tandem quantize --force put this folder aside. It is safe to delete once the new one works.\n";

tl::unexpected<base::Error> failed(const fs::path& path, const char* action, int error) {
  const bool full = error == ENOSPC || error == EDQUOT;
  return base::make_error(
      full ? base::ErrorCode::kResourceExhausted : base::ErrorCode::kInvalidArgument,
      fmt::format("{}: expected to {}, got: {}", path.string(), action, std::strerror(error)));
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

// A folder of ours that got its name, but not its config. It has no marker any more: one in a
// folder of the final name is somebody else's file.
bool lacks_its_config(const fs::path& dir) {
  return !is_there(dir / kConfig) && is_there(dir / kHeldConfig);
}

// A folder of ours that never became a model.
bool is_leftover(const fs::path& dir) {
  return lacks_its_config(dir) || (!is_there(dir / kConfig) && is_there(dir / kMarker));
}

bool is_empty_folder(const fs::path& dir) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(dir, error)) && fs::is_empty(dir, error);
}

// Where the files are written.
fs::path unfinished(const fs::path& path) {
  fs::path dir = path;
  dir += ".partial";
  return dir;
}

// Where the old folder goes until the new one is complete.
fs::path aside(const fs::path& path) {
  fs::path old = path;
  old += ".replaced";
  return old;
}

bool is_ours_aside(const fs::path& old) {
  return is_there(old / kReplacedMarker);
}

base::Status check_aside(const fs::path& path) {
  const fs::path old = aside(path);
  if (!is_there(path) || !is_there(old) || is_ours_aside(old)) return {};
  return base::invalid(
      "{}: expected nothing of that name, as {} goes there until the new folder is complete, got a "
      "folder of somebody else's; move it",
      old.string(), path.filename().string());
}

base::Status check_target(const fs::path& path, bool force) {
  std::error_code error;
  if (!fs::is_directory(path.parent_path(), error))
    return base::make_error(
        base::ErrorCode::kNotFound,
        fmt::format("{}: expected an existing folder to write into, got none; make it first",
                    path.parent_path().string()));
  if (!is_there(path) || is_empty_folder(path) || lacks_its_config(path)) return {};
  if (!fs::is_directory(fs::symlink_status(path, error)))
    return base::invalid("{}: expected a new folder, got a file or a link; choose another name",
                         path.string());
  if (force) return {};
  return base::invalid(
      "{}: expected a new or empty folder, got one with files; choose another name, or replace it "
      "with --force",
      path.string());
}

// The folder's descriptor, locked against other runs.
base::Result<int> lock_folder(const fs::path& dir) {
  const int descriptor = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) return failed(dir, "open the folder", errno);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
  ::close(descriptor);
  return base::invalid("{}: expected nobody else to write it, got another run that does",
                       dir.string());
}

base::Status empty_folder(const fs::path& dir) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    fs::remove_all(entry.path(), error);
    if (error) return failed(entry.path(), "remove it", error.value());
  }
  return {};
}

base::Status rename_path(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return failed(from, "rename it", errno);
  return {};
}

}  // namespace

base::Result<OutputFolder> OutputFolder::create(const fs::path& path, bool force) {
  OutputFolder folder;
  folder.path_ = io::normal_folder(path);
  folder.force_ = force;
  TANDEM_RETURN_IF_ERROR(check_target(folder.path_, force));
  TANDEM_RETURN_IF_ERROR(check_aside(folder.path_));
  fs::path dir = unfinished(folder.path_);
  if (::mkdir(dir.c_str(), 0755) != 0) {
    if (errno != EEXIST) return failed(dir, "make the folder", errno);
    if (!is_leftover(dir) && !is_empty_folder(dir))
      return base::invalid(
          "{}: expected to write here, got a folder that no interrupted run left behind; move it",
          dir.string());
  }
  TANDEM_ASSIGN_OR_RETURN(folder.lock_, lock_folder(dir));
  folder.dir_ = std::move(dir);
  TANDEM_RETURN_IF_ERROR(empty_folder(folder.dir_));
  TANDEM_RETURN_IF_ERROR(io::write_file_atomically(folder.dir_ / kMarker, kMarkerText));
  return folder;
}

std::vector<fs::path> OutputFolder::names(const fs::path& path) {
  const fs::path own = io::normal_folder(path);
  return {own, unfinished(own), aside(own)};
}

OutputFolder::OutputFolder(OutputFolder&& other) noexcept {
  *this = std::move(other);
}

OutputFolder& OutputFolder::operator=(OutputFolder&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(dir_, other.dir_);
  std::swap(force_, other.force_);
  std::swap(lock_, other.lock_);
  return *this;
}

OutputFolder::~OutputFolder() {
  std::error_code error;
  if (!dir_.empty()) fs::remove_all(dir_, error);
  if (lock_ >= 0) ::close(lock_);
}

base::Status OutputFolder::hold_config(std::string_view json) {
  return io::write_file_atomically(dir_ / kHeldConfig, json);
}

// What is in the way of the new folder; only --force lets a real model be there.
base::Status OutputFolder::replace_old() {
  TANDEM_RETURN_IF_ERROR(check_target(path_, force_));
  TANDEM_RETURN_IF_ERROR(check_aside(path_));
  if (!is_there(path_)) return {};
  const fs::path old = aside(path_);
  std::error_code error;
  fs::remove_all(old, error);
  TANDEM_RETURN_IF_ERROR(rename_path(path_, old));
  // Without it nothing is lost: the next run then asks its user.
  std::ignore = io::write_file_atomically(old / kReplacedMarker, kReplacedText);
  return {};
}

base::Status OutputFolder::publish() {
  TANDEM_CHECK(is_there(dir_ / kHeldConfig));
  std::error_code error;
  fs::remove(dir_ / kMarker, error);
  TANDEM_RETURN_IF_ERROR(io::sync_folder(dir_));
  const bool had_old = is_there(path_);
  TANDEM_RETURN_IF_ERROR(replace_old());
  TANDEM_RETURN_IF_ERROR(rename_path(dir_, path_));
  dir_.clear();
  TANDEM_RETURN_IF_ERROR(io::sync_folder(path_.parent_path()));
  TANDEM_RETURN_IF_ERROR(rename_path(path_ / kHeldConfig, path_ / kConfig));
  TANDEM_RETURN_IF_ERROR(io::sync_folder(path_));
  if (had_old || is_ours_aside(aside(path_))) fs::remove_all(aside(path_), error);
  return {};
}

}  // namespace tandem::quantize
