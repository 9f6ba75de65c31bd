// What the engine is asked, and what it answers: plain values.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/token_constraint.h"
#include "sampling/params.h"
#include "sampling/sampler.h"
#include "speculation/acceptance.h"

namespace tandem::engine {

struct EngineRequest {
  uint64_t id = 0;  // chosen by the caller, unique among the unfinished
  std::vector<int32_t> prompt_ids;
  sampling::SamplingParams sampling;
  int64_t max_tokens = 0;               // most output tokens
  std::optional<int> num_draft_tokens;  // K; absent: the engine's
  int64_t priority = 0;                 // lower ones are served first
  std::string cache_salt = {};          // requests of different salts share no cached prefix
  // What the answer may be; this request's own, at its beginning. Null: anything.
  std::shared_ptr<base::TokenConstraint> constraint = nullptr;
};

enum class FinishReason {
  kStop,       // a stop or eos id came out
  kLength,     // max_tokens
  kCancelled,  // cancel()
  kError,      // the model gave no usable logits; Finish::error says so
};

struct RequestStats {
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;  // kept ones: what a stop cut off is not counted
  int64_t num_preemptions = 0;
  int64_t num_cached_tokens = 0;  // of the prompt, found in the prefix cache at the first step
  // Counts the drafter's work: accepted tokens that a stop cut off are accepted here.
  speculation::AcceptanceStats acceptance;
  double queue_seconds = 0;        // until first scheduled
  double first_token_seconds = 0;  // until the first token; 0 without one
  double total_seconds = 0;
};

struct Finish {
  FinishReason reason = FinishReason::kStop;
  std::optional<int32_t> stop_token;  // kStop: the id that ended it, the last kept token
  std::string error;
  RequestStats stats;
};

// What one step gave one request. A request has at most one event per step; its last has `finish`.
struct TokenEvent {
  uint64_t id = 0;
  std::vector<sampling::TokenChoice> tokens = {};  // kept, in order
  int num_drafted = 0;                             // in this round
  int num_accepted = 0;                            // of these; the first num_accepted of `tokens`
  int64_t num_cached_tokens = 0;                   // of the prompt, as in RequestStats
  // With the first tokens, for num_prompt_logprobs: of every prompt token but the first.
  std::vector<sampling::TokenScore> prompt_scores = {};
  std::optional<Finish> finish = std::nullopt;
};

}  // namespace tandem::engine
