#include "model/transformer_layer.h"

#include <algorithm>

#include "core/bf16.h"
#include "ops/activation.h"
#include "ops/rms_norm.h"

namespace tandem::model {
namespace {

float scalar_of(const core::TensorView& tensor) {
  return tensor.dtype == core::DType::kF32 ? *tensor.ptr<float>()
                                           : core::to_float(*tensor.ptr<core::BFloat16>());
}

// The first n rows of a buffer as [n, heads, head_dim] (dense: the buffer may be wider).
core::TensorView heads_view(const core::Buffer& buffer, int64_t n, int64_t heads,
                            int64_t head_dim) {
  return core::TensorView(buffer.data(), buffer.view().dtype, {n, heads, head_dim});
}

core::TensorView matrix_view(const core::Buffer& buffer, int64_t n, int64_t cols) {
  return core::TensorView(buffer.data(), buffer.view().dtype, {n, cols});
}

// Each head as a row, for the norms of q, k and v.
core::TensorView by_head(const core::TensorView& heads) {
  return core::TensorView(heads.data, heads.dtype,
                          {heads.shape[0] * heads.shape[1], heads.shape[2]});
}

}  // namespace

struct TransformerLayer::Rows {
  core::TensorView x, normed, branch;  // [n, hidden]
  core::TensorView q, context;         // [n, num_heads, head_dim]
  core::TensorView k, v;               // [n, num_key_value_heads, head_dim]
  core::TensorView gate, up;           // [n, intermediate]
};

TransformerLayer::TransformerLayer(const io::Checkpoint& checkpoint, int64_t index,
                                   const ModelOptions& options) {
  const io::TextConfig& text = checkpoint.config().text;
  config_ = text.layers[static_cast<size_t>(index)];
  index_ = index;
  num_heads_ = text.num_attention_heads;
  window_ = config_.type == io::LayerType::kSliding ? text.sliding_window : 0;
  eps_ = static_cast<float>(text.rms_norm_eps);
  writes_kv_ = checkpoint.config().kind == io::ModelKind::kTarget;

  const std::string prefix = fmt::format("layers.{}.", index);
  std::vector<std::string> qkv = {prefix + "self_attn.q_proj"};
  if (writes_kv_) {
    qkv.push_back(prefix + "self_attn.k_proj");
    if (!config_.k_eq_v) qkv.push_back(prefix + "self_attn.v_proj");
    k_norm_ = checkpoint.tensor(prefix + "self_attn.k_norm.weight");
  }
  qkv_ = Linear(checkpoint, std::move(qkv), options);
  o_proj_ = Linear(checkpoint, {prefix + "self_attn.o_proj"}, options);
  gate_up_ = Linear(checkpoint, {prefix + "mlp.gate_proj", prefix + "mlp.up_proj"}, options);
  down_proj_ = Linear(checkpoint, {prefix + "mlp.down_proj"}, options);
  q_norm_ = checkpoint.tensor(prefix + "self_attn.q_norm.weight");
  input_norm_ = checkpoint.tensor(prefix + "input_layernorm.weight");
  post_attention_norm_ = checkpoint.tensor(prefix + "post_attention_layernorm.weight");
  pre_feedforward_norm_ = checkpoint.tensor(prefix + "pre_feedforward_layernorm.weight");
  post_feedforward_norm_ = checkpoint.tensor(prefix + "post_feedforward_layernorm.weight");
  layer_scalar_ = scalar_of(checkpoint.tensor(prefix + "layer_scalar"));
}

void TransformerLayer::forward(const ops::Context& context, const LayerRows& rows,
                               const ops::KvView& kv, Activations& activations,
                               Observer* observer) const {
  const auto n = static_cast<int64_t>(rows.sequences.size());
  const int64_t kv_heads = config_.num_key_value_heads;
  Rows views;
  views.x = activations.x.rows(n);
  views.normed = activations.normed.rows(n);
  views.branch = activations.branch.rows(n);
  views.q = heads_view(activations.q, n, num_heads_, config_.head_dim);
  views.context = heads_view(activations.context, n, num_heads_, config_.head_dim);
  views.k = heads_view(activations.k, n, kv_heads, config_.head_dim);
  views.v = heads_view(activations.v, n, kv_heads, config_.head_dim);
  views.gate = activations.gate.rows(n);
  views.up = activations.up.rows(n);

  ops::rms_norm(context, views.x, input_norm_, eps_, views.normed);
  project(context, rows, views, observer);
  attend(context, rows, kv, views);
  const auto attended = matrix_view(activations.context, n, num_heads_ * config_.head_dim);
  const core::TensorView outputs[] = {views.branch};
  o_proj_.forward(context, attended, outputs, observer);
  ops::add_rms_norm(context, views.branch, post_attention_norm_, eps_, 1.0F, views.x);
  feed_forward(context, views, observer);
}

// q, k and v with their norms and rotation. In k_eq_v layers V is the raw K projection, normed
// without a weight and not rotated.
void TransformerLayer::project(const ops::Context& context, const LayerRows& rows,
                               const Rows& views, Observer* observer) const {
  const int64_t n = views.x.rows();
  const int64_t kv_dim = config_.num_key_value_heads * config_.head_dim;
  const core::TensorView outputs[] = {
      core::TensorView(views.q.data, views.q.dtype, {n, num_heads_ * config_.head_dim}),
      core::TensorView(views.k.data, views.k.dtype, {n, kv_dim}),
      core::TensorView(views.v.data, views.v.dtype, {n, kv_dim})};
  qkv_.forward(context, views.normed, std::span(outputs, qkv_.size()), observer);

  ops::rms_norm(context, by_head(views.q), q_norm_, eps_, by_head(views.q));
  ops::rope(context, rows.rope->cos.rows(n), rows.rope->sin.rows(n), views.q);
  if (!writes_kv_) return;
  const core::TensorView& raw_v = config_.k_eq_v ? views.k : views.v;
  ops::rms_norm(context, by_head(raw_v), core::TensorView(), eps_, by_head(views.v));
  ops::rms_norm(context, by_head(views.k), k_norm_, eps_, by_head(views.k));
  ops::rope(context, rows.rope->cos.rows(n), rows.rope->sin.rows(n), views.k);
  if (observer != nullptr) observer->on_kv(index_, views.k, views.v);
}

// Writes K and V, then attends. A ring cannot hold a whole prefill chunk beside the window, so rows
// go in slices: no slice has more rows of one sequence than the ring has beyond the window.
void TransformerLayer::attend(const ops::Context& context, const LayerRows& rows,
                              const ops::KvView& kv, const Rows& views) const {
  const auto n = static_cast<int64_t>(rows.sequences.size());
  const bool ring = rows.places.ring_len > 0;
  const int64_t slack = ring ? rows.places.ring_len - window_ + 1 : n;
  TANDEM_CHECK_GT(slack, 0);
  for (int64_t begin = 0; begin < n;) {
    int64_t end = begin;
    int64_t same_sequence = 0;
    while (end < n && same_sequence < slack) {
      ++end;
      const bool next_is_same = end < n && rows.sequences[static_cast<size_t>(end)] ==
                                               rows.sequences[static_cast<size_t>(end - 1)];
      same_sequence = next_is_same ? same_sequence + 1 : 0;
    }
    const auto offset = static_cast<size_t>(begin);
    const auto count = static_cast<size_t>(end - begin);
    const auto sequences = rows.sequences.subspan(offset, count);
    if (writes_kv_)
      ops::kv_write(context, views.k.slice_rows(begin, end), views.v.slice_rows(begin, end),
                    sequences, rows.positions.subspan(offset, count), rows.places, kv);
    ops::attention(context, views.q.slice_rows(begin, end), sequences,
                   rows.last_keys.subspan(offset, count), window_, rows.places, kv,
                   views.context.slice_rows(begin, end));
    begin = end;
  }
}

void TransformerLayer::feed_forward(const ops::Context& context, const Rows& views,
                                    Observer* observer) const {
  ops::rms_norm(context, views.x, pre_feedforward_norm_, eps_, views.normed);
  const core::TensorView gate_up[] = {views.gate, views.up};
  gate_up_.forward(context, views.normed, gate_up, observer);
  ops::gelu_mul(context, views.gate, views.up, views.gate);
  const core::TensorView down[] = {views.branch};
  down_proj_.forward(context, views.gate, down, observer);
  ops::add_rms_norm(context, views.branch, post_feedforward_norm_, eps_, layer_scalar_, views.x);
}

}  // namespace tandem::model
