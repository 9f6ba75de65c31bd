// One step's input and output: a value, made by the engine (or the calibrator), read by
// SpeculativeStep.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/token_constraint.h"
#include "model/forward_batch.h"
#include "ops/attention.h"
#include "sampling/sampler.h"

namespace tandem::speculation {

// One sequence's part of a step: a prefill chunk, or a round of drafting and verifying.
struct SpecSequence {
  int32_t state_slot = 0;           // row of the state store; stays the same while it runs
  std::span<const int32_t> tokens;  // a chunk of the prompt, or the newest token alone
  int64_t start_position = 0;       // position of tokens[0]
  // Positions below this are the prompt's; a backend may run them in kernels of their own, so it
  // stays the same while the sequence lives.
  int64_t num_prompt_tokens = 0;
  bool samples = false;                  // the last row has no known successor: emit tokens
  int num_draft_tokens = 0;              // K of this round; 0 for prefill chunks
  sampling::Sampler* sampler = nullptr;  // needed when `samples`; commits every emitted token
  // What may follow the newest token; it moves over every emitted one. Null: anything.
  base::TokenConstraint* constraint = nullptr;
  // Log-probabilities of a prompt: scored_tokens[j] is what follows tokens[j]. At most one for each
  // token; empty: none are wanted.
  std::span<const int32_t> scored_tokens = {};
  int32_t num_scored_top = 0;
};

struct SpecBatch {
  std::vector<SpecSequence> sequences;
  ops::KvPlaces ring;  // block tables, one row per entry of `sequences`
  ops::KvPlaces pages;
  // Before any row: rings of sequences that start behind a cached prefix, and copies for the cache.
  std::span<const model::RingBlockCopy> ring_copies = {};
};

struct SpecSequenceResult {
  // Emitted in order: accepted drafts, then the correction or bonus. Empty for a chunk that does
  // not sample; ends before the row without usable logits when `failed`. Tokens past a stop are the
  // caller's to drop.
  std::vector<sampling::TokenChoice> tokens;
  int num_drafted = 0;
  int num_accepted = 0;
  bool failed = false;                            // NaN or infinite logits: this sequence only
  std::vector<sampling::TokenScore> scores = {};  // one for each of scored_tokens
};

struct StepTime {
  int64_t num_rows = 0;
  double seconds = 0;
  bool settled = true;  // false: later steps of this kind are faster, such as graphs on a GPU
};

struct SpecResult {
  std::vector<SpecSequenceResult> sequences;  // in the batch's order
  // Measured; empty where nobody measures.
  StepTime verify_time = {};               // the target, and all that follows from its rows
  std::vector<StepTime> draft_times = {};  // of each step of the assistant
};

}  // namespace tandem::speculation
