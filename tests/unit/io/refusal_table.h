// The refusals table: what was done to a valid tiny checkpoint, and what the user reads.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::io {

// What a row starts from; the table of make_start in refusal_table.cc.
enum class Start {
  kTarget,
  kTextOnly,
  kAssistant,
  kFp8Target,
  kFp8Assistant,
  kFp8KvTarget,
  kBlockTarget,
  kPerChannelTarget,
  kCompressedTensorTarget,
  kCompressedChannelTarget,
};

test_support::TinyCheckpoint make_start(Start start);

struct Row {
  const char* what;
  Start start;
  std::function<void(test_support::TinyCheckpoint&)> edit;
  // Parts the message must contain, in this order.
  std::vector<std::string> message;
  // Runs after the folder is written, for what no edit can express.
  std::function<void(const std::filesystem::path&)> edit_folder = {};
  int num_shards = 1;
};

// Each row must be refused with its message by open() or check_values(), within five seconds and
// without holding on to memory; prints `what -> message`, one line per row.
void expect_refused(const std::vector<Row>& rows);

// The same rows, but each must load and pass check_values().
void expect_loads(const std::vector<Row>& rows);

// A pair that check_pair must refuse.
struct PairRow {
  const char* what;
  std::function<void(test_support::TinyCheckpoint& target, test_support::TinyCheckpoint& assistant)>
      edit;
  std::vector<std::string> message;
};
void expect_pair_refused(const std::vector<PairRow>& rows);

// For tables of other functions: checks and prints one row; `folder` is left out of the message.
void expect_message(const std::string& what, const base::Status& status,
                    const std::vector<std::string>& parts, const std::string& folder = "");

}  // namespace tandem::io
