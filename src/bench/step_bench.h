// tandem bench step: verify by rows, draft step, round and prefill, each beside its roofline.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "bench/step_model.h"

namespace tandem::bench {

struct StepOptions {
  StepSetup setup;
  Timing timing;
};

// {"read_gb_per_s", "bytes", "verify": [...], "draft": {...}, "rounds": [...], "prefill": {...}}.
// Every line has "ms" (median), "roofline_ms" (bytes over the read bandwidth measured just before)
// and "share_of_roofline"; rounds have tokens_per_s for the mean length they name.
nlohmann::ordered_json run_step_bench(Device& device, StepModel& model, const StepBytes& bytes,
                                      const StepOptions& options);

std::string step_table(const nlohmann::ordered_json& result);

}  // namespace tandem::bench
