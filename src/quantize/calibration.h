// Speculative decoding with the BF16 pair over prompts, watched: the code that serves makes the
// activations whose ranges the scales come from (modelopt_fp8 7).
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "model/pair.h"
#include "quantize/observation.h"
#include "quantize/progress.h"
#include "sampling/params.h"
#include "speculation/sequence_runner.h"

namespace tandem::quantize {

struct CalibrationOptions {
  int64_t max_new_tokens = 256;
  int num_draft_tokens = 4;
  uint64_t seed = 0;
  sampling::SamplingParams sampling;  // default_sampling(): as the model is served
};

struct CalibrationRun {
  std::vector<std::vector<int32_t>> texts;  // prompt and answer of each prompt
  std::vector<int64_t> prompt_lens;         // of each text
  speculation::AcceptanceStats stats;
  int64_t num_generated = 0;
  int64_t num_rounds = 0;
};

// What generation_config.json asks for; greedy where do_sample is false, the rest as it stands.
sampling::SamplingParams default_sampling(const io::Checkpoint& target);

// Ids that end an answer.
std::vector<int32_t> end_ids(const io::Checkpoint& target);

// Runs every prompt. The assistant and its observer may be missing (plain decoding). Refused: a
// prompt longer than the model's positions, NaN or infinity by the name of where it came first.
base::Result<CalibrationRun> calibrate(const ops::Context& context, model::Pair& pair,
                                       const std::vector<std::vector<int32_t>>& prompts,
                                       const CalibrationOptions& options,
                                       CalibrationObserver* target_observer,
                                       CalibrationObserver* assistant_observer,
                                       const Progress& progress);

}  // namespace tandem::quantize
