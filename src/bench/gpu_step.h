// The parts of a round on a GPU: rounds and prompts through the engine that serves, on the wall
// clock; verify, drafts and rounds on the device's own.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "bench/step_model.h"
#include "engine/runtime.h"

namespace tandem::bench {

// Sequences that run at once, each with so many tokens in the KV cache.
struct StepLoad {
  int64_t batch = 1;
  int64_t context = 1024;
};

// "8x2048": eight sequences of 2048 tokens.
base::Result<StepLoad> parse_step_load(const std::string& text);

// What a step's rounds may add to the longest context before they end.
inline constexpr int64_t kGpuStepRoom = 1024;

class GpuStep : public StepModel {
 public:
  // The runtime has no prefix cache, takes contexts of every setup and load and kGpuStepRoom tokens
  // more, is on a GPU (run_rounds() alone does without) and outlives this.
  GpuStep(engine::Runtime& runtime, const StepSetup& setup);

  std::vector<double> verify(const Timing& timing, int rows) override;
  std::vector<double> draft(const Timing& timing) override;
  std::vector<double> round(const Timing& timing, int num_draft_tokens,
                            RoundCounts& counts) override;
  std::vector<double> round_on_device(const Timing& timing, int num_draft_tokens) override;
  std::vector<double> prefill(const Timing& timing, int64_t num_tokens) override;

  // Rounds of a load. num_draft_tokens absent: the engine chooses for every round.
  struct Rounds {
    std::vector<double> seconds;
    RoundCounts counts;          // of all rounds and sequences
    double prefill_seconds = 0;  // until every sequence had its first token
  };
  Rounds run_rounds(const Timing& timing, const StepLoad& load,
                    std::optional<int> num_draft_tokens);
  // Without the engine: over blocks that earlier prompts have filled.
  std::vector<double> on_device(const Timing& timing, const StepLoad& load, int num_draft_tokens,
                                gpu::StepPart part);
  const StepSetup& setup() const { return setup_; }
  core::DType kv_dtype() const { return runtime_.kv_dtype(); }

 private:
  std::optional<double> idle_seconds() const;  // before the engine's last step
  // Runs prompts of a load unless larger ones have been run: what steps read then is no accident of
  // the memory, on which a screened head's time depends.
  void fill_cache(const StepLoad& load);

  engine::Runtime& runtime_;
  StepSetup setup_;
  StepLoad filled_{0, 0};
};

struct GpuLoadOptions {
  Timing timing;
  bool engine_rounds = true;  // false: the device's clock alone
  bool automatic = false;
  double read_bandwidth = 0;  // bytes per second
};

// Entries for each load: every K up to the setup's on the device's clock ("device_ms"), plain
// rounds, those with all drafts and, with `automatic`, those for which the engine chooses through
// the engine too ("ms", "idle_us", "prefill_tokens_per_s"). {"batch", "context",
// "num_draft_tokens", "roofline_ms", "share_of_roofline", "mean_length", "tokens_per_s"}; the last
// three are of "ms" where it is there. The roofline counts bytes alone: beyond some 160 rows
// arithmetic is more.
nlohmann::ordered_json run_gpu_loads(GpuStep& step, const model::Pair& pair,
                                     std::span<const StepLoad> loads,
                                     const GpuLoadOptions& options);

std::string gpu_loads_table(const nlohmann::ordered_json& loads);

}  // namespace tandem::bench
