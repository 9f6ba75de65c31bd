#include "model/assistant_model.h"

#include "ops/activation.h"
#include "ops/rms_norm.h"

namespace tandem::model {
namespace {

// Columns [begin, end) of a matrix as a strided view.
core::TensorView columns(const core::TensorView& matrix, int64_t begin, int64_t end) {
  core::TensorView view(static_cast<char*>(matrix.data) +
                            begin * static_cast<int64_t>(core::dtype_bytes(matrix.dtype)),
                        matrix.dtype, {matrix.shape[0], end - begin});
  view.row_stride = matrix.row_stride;
  return view;
}

}  // namespace

AssistantModel::AssistantModel(std::shared_ptr<const io::Checkpoint> checkpoint,
                               const TargetModel& target, const ModelOptions& options)
    : checkpoint_(std::move(checkpoint)),
      target_(&target),
      options_(options),
      kv_layers_(io::shared_kv_layers(target.checkpoint().config(), checkpoint_->config())),
      ropes_(checkpoint_->config().text, options),
      activations_(checkpoint_->config().text, options) {
  TANDEM_CHECK(checkpoint_->config().kind == io::ModelKind::kAssistant);
  for (int64_t i = 0; i < config().num_layers(); ++i)
    layers_.emplace_back(*checkpoint_, i, options);
  pre_projection_ = Linear(*checkpoint_, {"pre_projection"}, options);
  post_projection_ = Linear(*checkpoint_, {"post_projection"}, options);
  norm_ = checkpoint_->tensor("norm.weight");
  head_ = DraftHead(checkpoint_->head(), options.draft_head);
  input_ = core::Buffer(options.activation_dtype(),
                        {options.max_rows, 2 * checkpoint_->config().backbone_hidden_size});
}

void AssistantModel::step(const ops::Context& context, const DraftBatch& batch, const KvStore& kv,
                          const core::TensorView& state, const core::TensorView& logits,
                          Observer* observer) {
  const int64_t n = batch.num_rows();
  TANDEM_CHECK_LE(n, options_.max_rows);
  const int64_t backbone = checkpoint_->config().backbone_hidden_size;
  const core::TensorView input = input_.rows(n);
  target_->embed(context, batch.token_ids, columns(input, 0, backbone));
  ops::gather_rows(context, state, {}, columns(input, backbone, 2 * backbone));
  const core::TensorView x = activations_.x.rows(n);
  pre_projection_.forward(context, input, std::span(&x, 1), observer);

  ropes_.compute(context, batch.positions);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const bool ring = layers_[i].config().type == io::LayerType::kSliding;
    const LayerRows rows{batch.sequences, batch.positions, batch.last_keys, &ropes_.layer(i),
                         ring ? batch.ring : batch.pages};
    layers_[i].forward(context, rows, kv.layer(kv_layers_[i]), activations_, observer);
  }
  const core::TensorView z = activations_.normed.rows(n);
  ops::rms_norm(context, x, norm_, static_cast<float>(config().rms_norm_eps), z);
  ops::linear(context, z, std::span(&head_.weight(), 1), std::span(&logits, 1));
  post_projection_.forward(context, z, std::span(&state, 1), observer);
}

}  // namespace tandem::model
