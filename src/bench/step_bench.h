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
  Timing timing;
};

// {"read_gb_per_s", "bytes", "verify": [...], "draft": {...}, "rounds": [...], "prefill": {...}}.
// Every line has "ms" (median), "roofline_ms" (bytes over the read bandwidth measured just before)
// and "share_of_roofline"; rounds have tokens_per_s for the mean length they name, and on a GPU
// "device_ms" and "host_gap_us", what the device idles between two rounds.
nlohmann::ordered_json run_step_bench(const std::function<double()>& read_bandwidth,
                                      StepModel& model, const StepBytes& bytes,
                                      const StepOptions& options);

// Tokens that a round of K drafts gives by the synthetic rates; nothing with real acceptance.
std::optional<double> expected_length(const StepSetup& setup, int num_draft_tokens);

std::string step_table(const nlohmann::ordered_json& result);

}  // namespace tandem::bench
