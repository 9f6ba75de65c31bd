#include "tests/unit/io/refusal_table.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdio>

#include "base/clock.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "tests/support/temp_folder.h"

namespace tandem::io {
namespace {

using test_support::TempFolder;
using test_support::TinyCheckpoint;
using test_support::TinyFormat;
using test_support::TinyOptions;

#ifdef __SANITIZE_ADDRESS__
constexpr double kSlowestSeconds = 30.0;
#else
constexpr double kSlowestSeconds = 5.0;  // the promise for every malformed checkpoint
#endif
constexpr size_t kMostKeptBytes = size_t{1} << 20;

base::Status open_and_check(const std::filesystem::path& dir) {
  TANDEM_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(dir));
  return checkpoint.check_values();
}

// Warnings belong to other tests: here they would hide the table.
class QuietLog {
 public:
  QuietLog() : level_(base::log_level()) { base::set_log_level(base::LogLevel::kError); }
  ~QuietLog() { base::set_log_level(level_); }

 private:
  base::LogLevel level_;
};

void replace_all(std::string& text, const std::string& part, const std::string& by) {
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + by.size()))
    text.replace(at, part.size(), by);
}

// Names of the test's own folder say nothing to a reader of the table.
std::string without_folder(std::string text, const std::string& folder) {
  if (folder.empty()) return text;
  replace_all(text, folder + "/", "");
  replace_all(text, folder, "DIR");
  return text;
}

base::Status write_and_open(const Row& row, const TempFolder& folder) {
  TinyCheckpoint checkpoint = make_start(row.start);
  if (row.edit) row.edit(checkpoint);
  checkpoint.write(folder.path(), row.num_shards);
  if (row.edit_folder) row.edit_folder(folder.path());
  const size_t before = ::mallinfo2().uordblks;
  const base::Stopwatch watch;
  base::Status status = open_and_check(folder.path());
  EXPECT_LT(watch.seconds(), kSlowestSeconds) << row.what;
  EXPECT_LT(::mallinfo2().uordblks, before + kMostKeptBytes) << row.what;
  return status;
}

}  // namespace

TinyCheckpoint make_start(Start start) {
  TinyOptions options;
  switch (start) {
    case Start::kTarget:
      return make_tiny_target(options);
    case Start::kTextOnly:
      options.text_only = true;
      options.prefix = "model.";
      return make_tiny_target(options);
    case Start::kAssistant:
      return make_tiny_assistant(options);
    case Start::kFp8Assistant:
      options.assistant_format = TinyFormat::kFp8;
      return make_tiny_assistant(options);
    case Start::kFp8Target:
      options.target_format = TinyFormat::kFp8;
      break;
    case Start::kFp8KvTarget:
      options.target_format = TinyFormat::kFp8;
      options.kv_scales = true;
      break;
    case Start::kBlockTarget:
      options.target_format = TinyFormat::kFp8Block;
      options.hidden = 160;  // more than one block each way, and none of them whole
      break;
    case Start::kPerChannelTarget:
      options.target_format = TinyFormat::kFp8PerChannel;
      break;
    case Start::kCompressedTensorTarget:
      options.target_format = TinyFormat::kCompressedTensor;
      break;
    case Start::kCompressedChannelTarget:
      options.target_format = TinyFormat::kCompressedChannel;
      break;
  }
  return make_tiny_target(options);
}

void expect_message(const std::string& what, const base::Status& status,
                    const std::vector<std::string>& parts, const std::string& folder) {
  if (status) {
    ADD_FAILURE() << what << ": expected a refusal, but it loads";
    return;
  }
  const std::string message = without_folder(status.error().message, folder);
  std::printf("%-58s -> %s\n", what.c_str(), message.c_str());
  size_t at = 0;
  for (const std::string& part : parts) {
    const size_t found = message.find(part, at);
    EXPECT_NE(found, std::string::npos)
        << what << "\n  reads:   " << message << "\n  expects: " << part;
    if (found == std::string::npos) return;
    at = found + part.size();
  }
  EXPECT_EQ(message.find('\n'), std::string::npos) << what;
  EXPECT_LT(message.size(), 600U) << what;
}

void expect_refused(const std::vector<Row>& rows) {
  const QuietLog quiet;
  for (const Row& row : rows) {
    ASSERT_FALSE(row.message.empty()) << row.what;
    const TempFolder folder;
    expect_message(row.what, write_and_open(row, folder), row.message, folder.path().string());
  }
}

void expect_loads(const std::vector<Row>& rows) {
  const QuietLog quiet;
  for (const Row& row : rows) {
    const TempFolder folder;
    const base::Status status = write_and_open(row, folder);
    EXPECT_TRUE(status.has_value()) << row.what << ": " << (status ? "" : status.error().message);
    std::printf("%-58s -> loads\n", row.what);
  }
}

void expect_pair_refused(const std::vector<PairRow>& rows) {
  const QuietLog quiet;
  for (const PairRow& row : rows) {
    const TempFolder folder;
    TinyCheckpoint target = make_start(Start::kTarget);
    TinyCheckpoint assistant = make_start(Start::kAssistant);
    row.edit(target, assistant);
    target.write(folder / "target");
    assistant.write(folder / "assistant");
    const auto first = read_model_config(folder / "target");
    const auto second = read_model_config(folder / "assistant");
    ASSERT_TRUE(first.has_value()) << row.what << ": " << first.error().message;
    ASSERT_TRUE(second.has_value()) << row.what << ": " << second.error().message;
    expect_message(row.what, check_pair(*first, *second), row.message);
  }
}

}  // namespace tandem::io
