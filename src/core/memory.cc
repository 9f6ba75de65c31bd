#include "core/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace tandem::core {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

int64_t of_machine(const fs::path& root) {
  std::ifstream file(root / "proc/meminfo");
  std::string name;
  int64_t kib = 0;
  for (std::string line; file >> name >> kib; std::getline(file, line))
    if (name == "MemAvailable:") return kib * 1024;
  return kNoLimit;
}

// Of a group without a limit the file says "max".
int64_t limit_in(const fs::path& file) {
  int64_t bytes = 0;
  return std::ifstream(file) >> bytes ? bytes : kNoLimit;
}

int64_t of_control_groups(const fs::path& root) {
  const fs::path groups = root / "sys/fs/cgroup";
  int64_t least = limit_in(groups / "memory.max");
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("0::/")) continue;
    fs::path group = groups;
    for (const fs::path& part : fs::path(line.substr(4))) {
      group /= part;
      least = std::min(least, limit_in(group / "memory.max"));
    }
  }
  return least;
}

}  // namespace

int64_t available_memory_bytes(const fs::path& root) {
  return std::min(of_machine(root), of_control_groups(root));
}

base::Status check_memory(double bytes, std::string_view what, std::string_view advice) {
  const auto available = static_cast<double>(available_memory_bytes());
  if (bytes <= available) return {};
  constexpr double kGiB = 1 << 30;
  return base::make_error(base::ErrorCode::kResourceExhausted,
                          fmt::format("memory: expected {:.1f} GiB for {}, got {:.1f} GiB; {}",
                                      bytes / kGiB, what, available / kGiB, advice));
}

}  // namespace tandem::core
