// The sampling flags, named as users know them, and what they mean for one model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/model_config.h"
#include "sampling/params.h"

namespace CLI {
class App;
}

namespace tandem::cli {

struct SamplingFlags {
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::optional<double> repetition_penalty;
  std::string logit_bias;  // JSON: {"TOKEN_ID": BIAS}
  std::optional<uint64_t> seed;
  int64_t max_tokens = 512;
  int64_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  std::string generation_config = "auto";  // or "none"
};

void add_sampling_flags(CLI::App& command, SamplingFlags& flags);

// A flag goes before generation_config.json, which goes before neutral values. In that file
// sampling off (do_sample false or absent) means greedy, as in transformers.
base::Result<sampling::SamplingParams> sampling_params(const SamplingFlags& flags,
                                                       const io::GenerationConfig& defaults,
                                                       int64_t vocab_size);

// --override-generation-config: JSON with temperature, top_k, top_p, min_p or repetition_penalty,
// which become flags; other keys are refused. Empty: nothing.
base::Status read_sampling_overrides(const std::string& text, SamplingFlags& flags);

// A flag whose value is JSON: an object, read with bounds.
base::Status check_json_object(const std::string& flag, const std::string& text);

}  // namespace tandem::cli
