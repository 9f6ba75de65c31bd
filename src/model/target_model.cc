#include "model/target_model.h"

#include <cmath>

#include "core/bf16.h"
#include "ops/activation.h"
#include "ops/embed.h"
#include "ops/rms_norm.h"

namespace tandem::model {

TargetModel::TargetModel(std::shared_ptr<const io::Checkpoint> checkpoint,
                         const ModelOptions& options)
    : checkpoint_(std::move(checkpoint)),
      options_(options),
      ropes_(checkpoint_->config().text, options),
      activations_(checkpoint_->config().text, options) {
  TANDEM_CHECK(checkpoint_->config().kind == io::ModelKind::kTarget);
  for (int64_t i = 0; i < config().num_layers(); ++i)
    layers_.emplace_back(*checkpoint_, i, options);
  embed_tokens_ = checkpoint_->tensor("embed_tokens.weight");
  norm_ = checkpoint_->tensor("norm.weight");
  head_.weight = checkpoint_->head();
  head_.format = ops::LinearFormat::kBF16;
  embed_scale_ = core::round_to_bf16(std::sqrt(static_cast<float>(config().hidden_size)));
}

core::TensorView TargetModel::forward(const ops::Context& context, const ForwardBatch& batch,
                                      KvStore& kv, Observer* observer) {
  const int64_t n = batch.num_rows();
  TANDEM_CHECK_GT(n, 0);
  TANDEM_CHECK_LE(n, options_.max_rows);
  embed(context, batch.token_ids, activations_.x.rows(n));
  ropes_.compute(context, batch.positions);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const bool ring = layers_[i].config().type == io::LayerType::kSliding;
    // A target row sees itself: its last key is its own position.
    const LayerRows rows{batch.sequences, batch.positions, batch.positions, &ropes_.layer(i),
                         ring ? batch.ring : batch.pages};
    layers_[i].forward(context, rows, kv.layer(static_cast<int64_t>(i)), activations_, observer);
  }
  const core::TensorView hidden = activations_.normed.rows(n);
  ops::rms_norm(context, activations_.x.rows(n), norm_, static_cast<float>(config().rms_norm_eps),
                hidden);
  return hidden;
}

void TargetModel::logits(const ops::Context& context, const core::TensorView& hidden,
                         const core::TensorView& logits) const {
  ops::linear(context, hidden, std::span(&head_, 1), std::span(&logits, 1));
  if (config().final_logit_softcapping > 0)
    ops::softcap(context, static_cast<float>(config().final_logit_softcapping), logits);
}

void TargetModel::embed(const ops::Context& context, std::span<const int32_t> token_ids,
                        const core::TensorView& out) const {
  ops::embed(context, token_ids, embed_tokens_, embed_scale_, out);
}

}  // namespace tandem::model
