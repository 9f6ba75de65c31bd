// tandem bench step: verify by rows, draft step, round and prefill, each beside its roofline.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "bench/step_model.h"

namespace tandem::bench {

struct StepOptions {
  StepSetup setup;
  Timing timing;  // of each line, over all turns
  int turns = 1;  // the lines take turns so often, so that what else the machine does meets all
};

// {"bytes", "verify": [...], "draft": {...}, "rounds": [...], "prefill": {...}}. Every line has
// "ms" (median), "read_gb_per_s" (measured just before and after, the median over the turns),
// "roofline_ms" (bytes over it) and "share_of_roofline" (the median over the turns); rounds have
// tokens_per_s for the mean length they name, "times_plain" (tokens_per_s against that of plain
// decoding in the same turn, the median), and on a GPU "device_ms", such steps one behind the
// other on the device's clock, and "idle_us", how long the device waited for the host before a
// round (both medians).
nlohmann::ordered_json run_step_bench(const std::function<double()>& read_bandwidth,
                                      StepModel& model, const StepBytes& bytes,
                                      const StepOptions& options);

// Tokens that a round of K drafts gives by the synthetic rates; nothing with real acceptance.
std::optional<double> expected_length(const StepSetup& setup, int num_draft_tokens);

std::string step_table(const nlohmann::ordered_json& result);

}  // namespace tandem::bench
