// --speculative-config: the JSON users already type for vLLM.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tandem::io {

struct SpeculativeConfig {
  std::filesystem::path model;     // folder of the assistant
  int num_speculative_tokens = 4;  // K; 0 switches drafting off
  bool automatic = false;          // "auto": the engine chooses K, up to num_speculative_tokens
  int draft_position_offset = 0;   // query position L-2 (0, vLLM) or L-1 (1, transformers)
  // draft_sample_method "probabilistic": where a request draws its tokens, so does the assistant.
  bool draws_drafts = false;
  // rejection_sample_method "synthetic" (benchmarks; every report says so).
  std::optional<double> synthetic_acceptance_length;
  std::vector<double> synthetic_acceptance_rates;
  // num_speculative_tokens_per_batch_size: K from this many requests on; empty: always the same.
  std::map<int64_t, int> drafts_from;
  std::optional<std::string> quantization;  // what the assistant is said to be
  std::vector<std::string> notes;           // keys that change nothing, and why
};

// Keys Tandem does not know are refused; those of vLLM that have no meaning here are refused by
// name unless they say what Tandem does anyway. Errors: `--speculative-config: KEY: expected X, got
// Y`.
base::Result<SpeculativeConfig> parse_speculative_config(std::string_view json,
                                                         int max_draft_tokens);

}  // namespace tandem::io
