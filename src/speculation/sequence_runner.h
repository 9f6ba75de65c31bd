// Speculative decoding of one prompt after another, outside the engine: calibration, evaluation and
// tests run exactly the step that serves.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/single_sequence.h"
#include "sampling/params.h"
#include "speculation/speculative_step.h"

namespace tandem::speculation {

struct RunnerOptions {
  int64_t max_tokens = 4096;  // prompt and answer together; sizes the KV store
  int num_draft_tokens = 4;
  int draft_position_offset = 0;
  bool draws_drafts = false;              // SpeculativeStepOptions
  std::vector<float> k_scales, v_scales;  // per layer, for an FP8 store; empty otherwise
  core::DType kv_dtype = core::DType::kBF16;
};

struct RunRequest {
  std::span<const int32_t> prompt;  // at least one id
  sampling::SamplingParams sampling;
  int64_t max_new_tokens = 256;
  std::vector<int32_t> eos_ids;
  std::vector<int32_t> suppress_tokens;
  uint64_t seed = 0;
  base::TokenConstraint* constraint = nullptr;  // at its beginning; null: anything
};

struct RunOutput {
  std::vector<int32_t> tokens;  // up to and with the first eos
  AcceptanceStats stats;
  int64_t num_rounds = 0;  // target passes after the prompt's
  bool failed = false;     // NaN or infinite logits
};

class SequenceRunner {
 public:
  // drafter may be null (plain decoding). Models outlive the runner.
  SequenceRunner(model::TargetModel& target, model::Drafter* drafter, const RunnerOptions& options);

  // Called after every step with the tokens so far; returning false ends the run (Ctrl-C).
  using Progress = std::function<bool(const RunOutput&)>;
  RunOutput run(const ops::Context& context, const RunRequest& request,
                const Progress& progress = {});

  SpeculativeStep& step() { return step_; }
  model::SingleSequence& sequence() { return sequence_; }

 private:
  SpecSequenceResult run_step(const ops::Context& context, std::span<const int32_t> tokens,
                              int64_t start_position, bool samples, int num_draft_tokens,
                              sampling::Sampler& sampler, base::TokenConstraint* constraint);

  model::TargetModel& target_;
  RunnerOptions options_;
  model::SingleSequence sequence_;
  SpeculativeStep step_;
};

}  // namespace tandem::speculation
