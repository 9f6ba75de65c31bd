// Opens a target and, if asked, its assistant: configs and pair first, then weights.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "base/status.h"
#include "io/checkpoint.h"
#include "model/assistant_model.h"
#include "model/target_model.h"

namespace tandem::model {

struct PairOptions {
  std::filesystem::path target;
  std::optional<std::filesystem::path> assistant;
  io::LoadOptions load;  // hf_overrides are for the target alone
  ModelOptions model;
  bool check_values = true;   // read every weight once and refuse NaN and infinity by name
  bool copy_weights = false;  // out of the mapped files, into memory that is faster to read
  // Called now and then while weights are read, and at the end of each folder.
  std::function<void(const std::filesystem::path& dir, int64_t done_bytes, int64_t total_bytes)>
      progress = {};
};

struct Pair {
  std::shared_ptr<const io::Checkpoint> target_checkpoint;
  std::shared_ptr<const io::Checkpoint> assistant_checkpoint;  // null without an assistant
  std::unique_ptr<TargetModel> target;
  std::unique_ptr<AssistantModel> assistant;  // null without one
  // Of whoever runs the pair; `assistant` has it unless a device has a head of its own.
  DraftHeadFormat draft_head = DraftHeadFormat::kCheckpoint;
  bool screens_heads = false;  // on a GPU, greedy tokens through 8-bit copies of BF16 heads
  int64_t copied_bytes = 0;    // what copy_weights took
};

// Refuses, before any weight is read: an assistant given as target, a target given as assistant,
// two models that do not belong together. Then opens both checkpoints and checks their values.
base::Result<Pair> load_pair(const PairOptions& options);

}  // namespace tandem::model
