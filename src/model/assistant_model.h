// The assistant (drafter): four Q-only layers that read the target's KV.
#pragma once

#include <memory>
#include <vector>

#include "io/checkpoint.h"
#include "model/draft_head.h"
#include "model/drafter.h"
#include "model/forward_batch.h"
#include "model/kv_store.h"
#include "model/rope_tables.h"
#include "model/target_model.h"
#include "model/transformer_layer.h"

namespace tandem::model {

class AssistantModel : public Drafter {
 public:
  // The pair must have passed io::check_pair. Holds a reference to the target for its embedding.
  AssistantModel(std::shared_ptr<const io::Checkpoint> checkpoint, const TargetModel& target,
                 const ModelOptions& options);

  // One draft step (gemma4_pair 5): reads the newest token and `state` [n, backbone], writes the
  // next state (post_projection's output) over it and logits [n, vocab] F32, without softcap.
  void step(const ops::Context& context, const DraftBatch& batch, const KvStore& kv,
            const core::TensorView& state, const core::TensorView& logits,
            Observer* observer) override;
  std::span<const int32_t> suppress_tokens() const override {
    return checkpoint_->generation_config().suppress_tokens;
  }

  const io::Checkpoint& checkpoint() const { return *checkpoint_; }
  const io::TextConfig& config() const { return checkpoint_->config().text; }
  const DraftHead& head() const { return head_; }

 private:
  std::shared_ptr<const io::Checkpoint> checkpoint_;
  const TargetModel* target_;
  ModelOptions options_;
  std::vector<TransformerLayer> layers_;
  std::vector<int64_t> kv_layers_;  // [num_layers] the target layer each layer reads
  RopeTables ropes_;
  Linear pre_projection_;   // [2 * backbone -> hidden]
  Linear post_projection_;  // [hidden -> backbone]
  core::TensorView norm_;   // [hidden] BF16
  DraftHead head_;          // [vocab, hidden]
  Activations activations_;
  core::Buffer input_;  // [max_rows, 2 * backbone] embedding, then state
};

}  // namespace tandem::model
