// Draft, verify, commit: one round for a batch of sequences. Schedules nothing.
//
// Between rounds (speculation.md 1): L tokens, of which the newest has no KV; keys 0 .. L-2; the
// state row of a sequence is the target's hidden state after the final norm at position L-2.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "model/drafter.h"
#include "model/target_model.h"
#include "speculation/acceptance.h"
#include "speculation/spec_batch.h"

namespace tandem::speculation {

struct SpeculativeStepOptions {
  int64_t max_sequences = 1;  // rows of the state store
  // RoPE position of draft queries: L-2 + offset. 0 is vLLM's convention, 1 is transformers'.
  int draft_position_offset = 0;
  bool draws_drafts = false;  // where a sampler draws, its guesses too; else they are argmaxes
  std::optional<SyntheticAcceptance> synthetic;
  uint64_t synthetic_seed = 0;
};

class SpeculativeStep {
 public:
  // assistant may be null: every round then has K = 0. Models and store outlive the step.
  SpeculativeStep(model::TargetModel& target, model::Drafter* assistant, model::KvStore& kv,
                  const SpeculativeStepOptions& options);

  // Runs one step. Each entry of the batch needs KV places for its rows: tokens plus drafts.
  SpecResult run(const ops::Context& context, const SpecBatch& batch);

  void set_observers(model::Observer* target, model::Observer* assistant) {
    target_observer_ = target;
    assistant_observer_ = assistant;
  }
  bool has_assistant() const { return assistant_ != nullptr; }

 private:
  // drafts_[i] for entry i; a row with NaN logits ends its sequence's drafting.
  void draft(const ops::Context& context, const SpecBatch& batch, SpecResult& result);
  void draft_step(const ops::Context& context, const SpecBatch& batch,
                  std::span<const size_t> active);
  // Instead of argmaxes, for those whose samplers draw.
  void draw_guesses(const SpecBatch& batch, std::span<const size_t> entries,
                    const core::TensorView& logits, std::span<int32_t> guesses) const;
  // Takes entry's guess of the last draft step; false ends its drafting.
  bool take_draft(const SpecSequence& sequence, int32_t token, std::vector<int32_t>& drafts) const;
  core::TensorView verify(const ops::Context& context, const SpecBatch& batch);
  void choose(const ops::Context& context, const SpecBatch& batch, const core::TensorView& hidden,
              SpecResult& result);
  // Log-probabilities of known tokens, in groups of rows.
  void score(const ops::Context& context, const SpecBatch& batch, const core::TensorView& hidden,
             SpecResult& result);

  model::TargetModel& target_;
  model::Drafter* assistant_;
  model::KvStore& kv_;
  SpeculativeStepOptions options_;
  model::Observer* target_observer_ = nullptr;
  model::Observer* assistant_observer_ = nullptr;

  core::Buffer states_;                       // [max_sequences, hidden] one row per state slot
  core::Buffer draft_state_;                  // [max_rows, hidden] states of the entries that draft
  core::Buffer draft_next_;                   // same: compacted when entries drop out
  core::Buffer logits_;                       // [kLogitRows, vocab] F32
  core::Buffer head_rows_;                    // [kLogitRows, hidden] rows that need logits
  std::vector<std::vector<int32_t>> drafts_;  // per entry of the current batch
  std::vector<int32_t> draft_tokens_;         // of the last draft step
  std::vector<int64_t> first_rows_;           // per entry: its first row in the forward pass
};

}  // namespace tandem::speculation
