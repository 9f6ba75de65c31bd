#include "core/memory.h"

#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "tests/support/temp_folder.h"

namespace tandem::core {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = 1 << 20;

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

TEST(AvailableMemory, IsWhatTheMachineHasOrTheTightestGroupAllows) {
  const test_support::TempFolder folder;
  const fs::path& root = folder.path();
  EXPECT_EQ(available_memory_bytes(root), std::numeric_limits<int64_t>::max());
  write(root / "proc/meminfo",
        "MemTotal:       16384 kB\nMemFree:         1024 kB\nMemAvailable:    8192 kB\n");
  EXPECT_EQ(available_memory_bytes(root), 8 * kMiB);
  write(root / "sys/fs/cgroup/memory.max", "max\n");
  write(root / "proc/self/cgroup", "1:name=systemd:/other\n0::/outer/inner\n");
  EXPECT_EQ(available_memory_bytes(root), 8 * kMiB);
  write(root / "sys/fs/cgroup/outer/inner/memory.max", "7340032\n");
  EXPECT_EQ(available_memory_bytes(root), 7 * kMiB);
  write(root / "sys/fs/cgroup/outer/memory.max", "6291456\n");
  EXPECT_EQ(available_memory_bytes(root), 6 * kMiB);
  // A container sees its own group as the topmost one.
  write(root / "proc/self/cgroup", "0::/\n");
  write(root / "sys/fs/cgroup/memory.max", "5242880\n");
  EXPECT_EQ(available_memory_bytes(root), 5 * kMiB);
}

TEST(AvailableMemory, IsToldByThisSystem) {
  EXPECT_GT(available_memory_bytes(), 16 * kMiB);
  EXPECT_LT(available_memory_bytes(), std::numeric_limits<int64_t>::max());
}

}  // namespace
}  // namespace tandem::core
