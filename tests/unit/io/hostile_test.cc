// Files nobody wrote by hand: random damage, headers of 100 MB, a file cut while it is open.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <random>

#include "base/clock.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using test_support::read_bytes;
using test_support::TempFolder;
using test_support::write_bytes;

// Flips, cuts, doubles and overwrites bytes near the front, where the structure is.
std::string damaged(std::string bytes, std::mt19937& random, size_t front) {
  const auto below = [&](size_t n) {
    return static_cast<size_t>(random()) % std::max<size_t>(n, 1);
  };
  const size_t changes = 1 + below(4);
  for (size_t i = 0; i < changes && !bytes.empty(); ++i) {
    const size_t at = below(std::min(front, bytes.size()));
    switch (below(5)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(below(256));
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, 1 + below(40)));
        break;
      default:
        bytes.erase(at, 1 + below(20));
    }
  }
  return bytes;
}

// Whatever comes back, it comes back: as a checkpoint or as one line for the user.
void open_many_damaged(const char* file, int num_shards, size_t front) {
  base::set_log_level(base::LogLevel::kError);
  const TempFolder folder;
  test_support::TinyOptions options;
  options.target_format = test_support::TinyFormat::kFp8;
  options.kv_scales = true;
  make_tiny_target(options).write(folder.path(), num_shards);
  const std::string good = read_bytes(folder / file);
  std::mt19937 random(7);
  constexpr int kRounds = 400;
  int refused = 0;
  for (int i = 0; i < kRounds; ++i) {
    write_bytes(folder / file, damaged(good, random, front));
    const auto checkpoint = Checkpoint::open(folder.path());
    if (checkpoint) {
      std::ignore = checkpoint->check_values();
      continue;
    }
    ++refused;
    ASSERT_FALSE(checkpoint.error().message.empty());
    ASSERT_LT(checkpoint.error().message.size(), 3000U);
  }
  std::printf("%s: %d of %d damaged files refused\n", file, refused, kRounds);
  EXPECT_GT(refused, kRounds / 2);
  write_bytes(folder / file, good);
  EXPECT_TRUE(Checkpoint::open(folder.path()).has_value());
  base::set_log_level(base::LogLevel::kInfo);
}

TEST(HostileTest, DamagedSafetensors) {
  open_many_damaged("model.safetensors", 1, 8000);
}
TEST(HostileTest, DamagedConfig) {
  open_many_damaged("config.json", 1, 1 << 20);
}
TEST(HostileTest, DamagedHfQuantConfig) {
  open_many_damaged("hf_quant_config.json", 1, 1 << 20);
}
TEST(HostileTest, DamagedGenerationConfig) {
  open_many_damaged("generation_config.json", 1, 1 << 20);
}
TEST(HostileTest, DamagedIndex) {
  open_many_damaged("model.safetensors.index.json", 3, 1 << 20);
}

// Private writable memory of this process, what RLIMIT_DATA limits.
[[maybe_unused]] size_t data_bytes() {
  size_t pages[6] = {};
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  for (size_t& page : pages) EXPECT_EQ(std::fscanf(file, "%zu", &page), 1);
  std::fclose(file);
  return pages[5] * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

// Header of almost 100 MB made of one thing. Private memory may grow by 64 MB: a larger private
// allocation fails under the limit and ends the test program.
void read_large_header(const char* what, const std::string& begin, const std::string& unit) {
  constexpr size_t kBytes = 99'000'000;
  std::string header = begin;
  header.reserve(kBytes + unit.size());
  while (header.size() < kBytes) header += unit;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_DATA, &before), 0);
#ifndef __SANITIZE_ADDRESS__
  const rlimit limit{data_bytes() + (size_t{64} << 20), before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_DATA, &limit), 0);
#endif
  const base::Stopwatch watch;
  const auto result = parse_safetensors_header(header, 8, "x.safetensors");
  const double seconds = watch.seconds();
  ::setrlimit(RLIMIT_DATA, &before);
  ASSERT_FALSE(result.has_value()) << what;
  std::printf("99 MB of %-20s %.2f s -> %s\n", what, seconds, result.error().message.c_str());
#ifndef __SANITIZE_ADDRESS__
  EXPECT_LT(seconds, 5.0) << what;
#endif
}

TEST(HostileTest, HeadersOf99MegabytesStayCheap) {
  read_large_header("brackets", "", "[");
  read_large_header("one string", "{\"", "aaaaaaaaaaaaaaaa");
  read_large_header("one number", "{\"a\":", "1111111111111111");
  read_large_header("white space inside", "{\"a\"", "                ");
  read_large_header("escapes", "{\"", "\\u0041\\u0041");
  read_large_header("many tensors", "{\"t\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}",
                    ",\"t\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}");
  read_large_header("much metadata", "{\"__metadata__\":{\"k\":\"v\"",
                    ",\"kkkkkkkk\":\"vvvvvvvv\"");
  read_large_header("a long shape", "{\"a\":{\"shape\":[1", ",1,1,1,1,1,1,1,1");
  read_large_header("commas", "{", ",");
}

TEST(HostileTest, AFileThatShrinksWhileOpenIsRefused) {
  const TempFolder folder;
  test_support::make_tiny_target().write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.has_value());
  const fs::path file = folder / "model.safetensors";
  fs::resize_file(file, fs::file_size(file) - 64);
  const base::Status status = checkpoint->check_values();
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().message.find("as when it was opened"), std::string::npos)
      << status.error().message;
}

// Replacing a folder's file by rename, as every careful writer does, leaves the open one intact.
TEST(HostileTest, AFileThatIsReplacedWhileOpenStaysReadable) {
  const TempFolder folder;
  test_support::make_tiny_target().write(folder.path());
  const auto checkpoint = Checkpoint::open(folder.path());
  ASSERT_TRUE(checkpoint.has_value());
  write_bytes(folder / "other", "short");
  fs::rename(folder / "other", folder / "model.safetensors");
  EXPECT_TRUE(checkpoint->check_values().has_value());
}

}  // namespace
}  // namespace tandem::io
