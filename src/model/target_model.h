// The target: a Gemma 4 decoder without its vision and audio embedders.
#pragma once

#include <memory>
#include <vector>

#include "io/checkpoint.h"
#include "model/forward_batch.h"
#include "model/kv_store.h"
#include "model/rope_tables.h"
#include "model/transformer_layer.h"

namespace tandem::model {

class TargetModel {
 public:
  // The checkpoint is shared: weights stay in its mapped files. It must be a target (the checkpoint
  // itself says otherwise when opened as one: check config().kind first).
  TargetModel(std::shared_ptr<const io::Checkpoint> checkpoint, const ModelOptions& options);

  // Runs all layers over the batch's rows, writes their K and V, and returns the hidden states
  // after the final norm, [n, hidden] in the activation dtype, valid until the next forward.
  core::TensorView forward(const ops::Context& context, const ForwardBatch& batch, KvStore& kv,
                           Observer* observer = nullptr);

  // logits [m, vocab] F32 of hidden rows [m, hidden]: the head with the final softcap.
  void logits(const ops::Context& context, const core::TensorView& hidden,
              const core::TensorView& logits) const;

  // Embedding rows times the scale, as both models take them: out [n, hidden].
  void embed(const ops::Context& context, std::span<const int32_t> token_ids,
             const core::TensorView& out) const;

  const io::Checkpoint& checkpoint() const { return *checkpoint_; }
  const io::TextConfig& config() const { return checkpoint_->config().text; }
  const ModelOptions& options() const { return options_; }

 private:
  std::shared_ptr<const io::Checkpoint> checkpoint_;
  ModelOptions options_;
  std::vector<TransformerLayer> layers_;
  RopeTables ropes_;
  core::TensorView embed_tokens_;  // [vocab, hidden] BF16
  core::TensorView norm_;          // [hidden] BF16
  ops::LinearWeight head_;         // [vocab, hidden], tied to embed_tokens or lm_head
  float embed_scale_ = 1;          // sqrt(hidden) rounded to BF16
  Activations activations_;
};

}  // namespace tandem::model
