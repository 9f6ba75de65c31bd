#include "io/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/temp_folder.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using test_support::read_bytes;
using test_support::TempFolder;
using test_support::write_bytes;

TEST(AtomicFileTest, AppearsUnderItsName) {
  const TempFolder folder;
  ASSERT_TRUE(write_file_atomically(folder / "a", "one"));
  ASSERT_TRUE(write_file_atomically(folder / "a", "two"));
  EXPECT_EQ(read_bytes(folder / "a"), "two");
  EXPECT_FALSE(fs::exists(folder / "a.partial"));
}

TEST(AtomicFileTest, SaysWhetherItCouldBeWritten) {
  const TempFolder folder;
  write_bytes(folder / "old", "x");
  EXPECT_TRUE(check_writable(folder / "new"));
  EXPECT_TRUE(check_writable(folder / "old"));
  EXPECT_FALSE(check_writable(folder / "missing" / "new"));
  EXPECT_FALSE(check_writable(folder / "old" / "new"));
  EXPECT_EQ(read_bytes(folder / "old"), "x");
  EXPECT_FALSE(fs::exists(folder / "new") || fs::exists(folder / "new.partial"));
}

// Both wrote into one PATH.partial: the first to publish had the other's bytes, the second nothing.
TEST(AtomicFileTest, TwoWritersOfOneFileDoNotMix) {
  const TempFolder folder;
  auto first = AtomicFile::create(folder / "a");
  auto second = AtomicFile::create(folder / "a");
  ASSERT_TRUE(first && second);
  EXPECT_TRUE(check_writable(folder / "a"));
  ASSERT_TRUE(first->append("first", 5));
  ASSERT_TRUE(second->append("2nd", 3));
  ASSERT_TRUE(first->publish());
  EXPECT_EQ(read_bytes(folder / "a"), "first");
  ASSERT_TRUE(second->publish());
  EXPECT_EQ(read_bytes(folder / "a"), "2nd");
}

TEST(AtomicFileTest, LeavesAFileOfTheTemporaryNameAlone) {
  const TempFolder folder;
  write_bytes(folder / "a.partial", "dear");
  EXPECT_TRUE(check_writable(folder / "a"));
  ASSERT_TRUE(write_file_atomically(folder / "a", "x"));
  EXPECT_EQ(read_bytes(folder / "a"), "x");
  EXPECT_EQ(read_bytes(folder / "a.partial"), "dear");
  EXPECT_FALSE(fs::exists(folder / "a.2.partial"));
}

TEST(AtomicFileTest, RefusesAnEmptyName) {
  EXPECT_FALSE(check_writable(""));
  EXPECT_FALSE(fs::exists(".partial"));
}

// As root, `--out-json /dev/null` would otherwise leave a machine without /dev/null.
TEST(AtomicFileTest, NeverReplacesWhatIsNoFile) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  fs::create_symlink("pipe", folder / "link");
  fs::create_directory(folder / "folder");
  for (const char* name : {"pipe", "link", "folder"}) {
    const base::Status status = write_file_atomically(folder / name, "x");
    ASSERT_FALSE(status) << name;
    EXPECT_NE(status.error().message.find("expected a file or nothing of that name, got a "),
              std::string::npos)
        << status.error().message;
  }
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_FALSE(write_file_atomically("/dev/null", "x"));
}

TEST(AtomicFileTest, WritesBehindALink) {
  const TempFolder folder;
  write_bytes(folder / "file", "old");
  fs::create_symlink("file", folder / "link");
  fs::create_symlink("nothing", folder / "dangling");
  ASSERT_TRUE(write_file_atomically(folder / "link", "new"));
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_bytes(folder / "file"), "new");
  ASSERT_TRUE(write_file_atomically(folder / "dangling", "x"));
  EXPECT_EQ(read_bytes(folder / "dangling"), "x");
}

}  // namespace
}  // namespace tandem::io
