// tandem quantize, without flags and progress bars: from a BF16 pair to FP8 folders.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/pair.h"
#include "quantize/auto_exclude.h"
#include "quantize/calibration.h"
#include "quantize/plan.h"
#include "quantize/progress.h"

namespace tandem::quantize {

struct QuantizeOptions {
  std::optional<std::filesystem::path> out_target;     // nothing: the target is not written
  std::optional<std::filesystem::path> out_assistant;  // nothing: nor is the assistant
  bool force = false;
  uint64_t max_shard_bytes = 5'000'000'000;
  ScaleOptions scales;
  CalibrationOptions calibration;
  std::vector<std::string> exclude;    // patterns, of either model
  std::optional<double> auto_exclude;  // KL per token; share of acceptance length
  std::string version;                 // of the product, for the report
};

// What one model became.
struct ModelResult {
  std::filesystem::path out;
  ModelPlan plan;
  std::optional<AutoExclusion> auto_exclusion;
  std::vector<std::string> exclusions;  // as written
  int64_t bytes = 0;
};

struct QuantizeResult {
  std::optional<ModelResult> target;
  std::optional<ModelResult> assistant;
  CalibrationRun calibration;
};

// Refuses what can be known before any work: options that do not fit, outputs in the way.
base::Status check_options(const QuantizeOptions& options, const model::Pair& pair);

// Calibrates, chooses scales, writes. Nothing appears under the final names before everything of
// both models is on the disk. The pair's options must be BF16's.
base::Result<QuantizeResult> quantize_pair(const ops::Context& context, model::Pair pair,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const QuantizeOptions& options,
                                           const Progress& progress);

// What would be written with the modules that --exclude leaves, without calibration.
base::Result<QuantizeResult> dry_run(const model::Pair& pair, const QuantizeOptions& options);

}  // namespace tandem::quantize
