#include "gpu/layer.h"

#include <algorithm>
#include <cmath>

#include "core/bf16.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/gelu_product.h"
#include "ops/cuda/head_prep.h"
#include "ops/cuda/row_ops.h"
#include "ops/rope.h"

namespace tandem::gpu {
namespace {

using ops::cuda::Stream;

float scalar_of(const core::TensorView& tensor) {
  return tensor.dtype == core::DType::kF32 ? *tensor.ptr<float>()
                                           : core::to_float(*tensor.ptr<core::BFloat16>());
}

// The largest magnitude of a BF16 vector.
float largest_of(const core::TensorView& tensor) {
  float largest = 0.0F;
  for (int64_t i = 0; i < tensor.shape[0]; ++i)
    largest = std::max(largest, std::fabs(core::to_float(tensor.ptr<core::BFloat16>()[i])));
  return largest;
}

ops::cuda::NextNorm next_norm(const NextInput& next, float eps, int num_rows,
                              const Workspace& workspace) {
  return {.weight = next.norm,
          .eps = eps,
          .operand = workspace.operand_for(num_rows, next.input_scale),
          .normed = next.normed_rows};
}

// Padding rows hold what they held before: nobody looks at what comes of them.
ops::cuda::Rows real_rows(const LayerPass& pass) {
  ops::cuda::Rows rows = pass.rows;
  rows.num_rows = pass.real_rows;
  return rows;
}

}  // namespace

void prepare_heads(const Stream& stream, const LayerWeights& layer, float eps,
                   const LayerPass& pass, const ops::cuda::Partials& product,
                   Workspace& workspace) {
  ops::cuda::HeadPrep prep;
  prep.product = product;
  for (size_t i = 0; i < 3; ++i) prep.scales[i] = layer.qkv.scales[i];
  prep.num_heads = layer.num_heads;
  prep.num_kv_heads = layer.writes_kv ? static_cast<int>(layer.config.num_key_value_heads) : 0;
  prep.head_dim = static_cast<int>(layer.config.head_dim);
  prep.k_eq_v = layer.config.k_eq_v;
  prep.eps = eps;
  prep.q_norm = layer.q_norm.as<uint16_t>();
  prep.k_norm = layer.k_norm.as<uint16_t>();
  prep.inv_freq = layer.inv_freq.as<float>();
  prep.kv = pass.kv;
  prep.places = pass.places;
  prep.q = workspace.q.as<uint16_t>();
  ops::cuda::head_prep(stream, real_rows(pass), prep);
}

namespace {

ops::cuda::Attention attention_of(const LayerWeights& layer, const LayerPass& pass, int num_tiles,
                                  Workspace& workspace) {
  const auto head_dim = static_cast<int>(layer.config.head_dim);
  // A tile's first row sees kTileRows - 1 keys more than its last row's window.
  const int keys = layer.window > 0
                       ? std::min(pass.max_keys, layer.window + ops::cuda::kTileRows - 1)
                       : pass.max_keys;
  ops::cuda::Attention job;
  job.num_heads = layer.num_heads;
  job.num_kv_heads = static_cast<int>(layer.config.num_key_value_heads);
  job.head_dim = head_dim;
  job.window = layer.window;
  job.q = workspace.q.as<uint16_t>();
  job.query_scale = layer.query_scale;
  job.kv = pass.kv;
  job.has_fresh_keys = layer.writes_kv;
  job.places = pass.places;
  job.workspace = workspace.attention.data();
  job.next_item = workspace.next_item.as<int>();
  if (pass.list >= 0)
    job.list = workspace.lists.as<uint8_t>() +
               static_cast<size_t>(pass.list) * ops::cuda::attention_list_bytes();
  job.max_segments = ops::cuda::attention_max_segments(head_dim, keys);
  job.out = {workspace.operand.data(), num_tiles, layer.o.input_scale};
  return job;
}

}  // namespace

void attend(const Stream& stream, const LayerWeights& layer, const LayerPass& pass, int num_tiles,
            Workspace& workspace) {
  ops::cuda::attention(stream, real_rows(pass), pass.tiles,
                       attention_of(layer, pass, num_tiles, workspace));
}

void list_attention(const Stream& stream, const LayerWeights& layer, const LayerPass& pass,
                    int num_tiles, Workspace& workspace) {
  ops::cuda::list_attention(stream, real_rows(pass), pass.tiles,
                            attention_of(layer, pass, num_tiles, workspace));
}

void attend_sums(const Stream& stream, const LayerWeights& layer, float eps, const LayerPass& pass,
                 const ops::cuda::Partials& product, Workspace& workspace) {
  ops::cuda::Attention job = attention_of(layer, pass, 1, workspace);
  job.query_sums = {.sums = product,
                    .scale = layer.qkv.scales[0],
                    .eps = eps,
                    .norm = layer.q_norm.as<uint16_t>(),
                    .inv_freq = layer.inv_freq.as<float>()};
  ops::cuda::attention(stream, real_rows(pass), pass.tiles, job);
}

namespace {

// Gate, up and the activation; leaves the operand of down.
void multiply_gated(const Stream& stream, const LayerWeights& layer, int num_rows,
                    Workspace& workspace) {
  const ops::cuda::PackedLinear& weight = layer.gate_up.weight;
  const ops::cuda::Operand inner = workspace.inner_operand_for(num_rows, layer.down.input_scale);
  if (ops::cuda::takes_gelu_product(weight)) {
    ops::cuda::gelu_product(stream, weight, workspace.operand.data(), num_rows / 8,
                            {.gate_scale = layer.gate_up.scales[0],
                             .up_scale = layer.gate_up.scales[1],
                             .out = inner,
                             .exchange = workspace.exchange.data()});
    return;
  }
  auto* partials = workspace.partials.as<float>();
  ops::cuda::product(stream, weight, workspace.operand.data(), num_rows / 8, partials);
  ops::cuda::gelu_operand(stream, {.num_rows = num_rows,
                                   .intermediate = weight.out_features / 2,
                                   .sums = weight.partials(partials, num_rows),
                                   .gate_scale = layer.gate_up.scales[0],
                                   .up_scale = layer.gate_up.scales[1],
                                   .operand = inner});
}

// The end of a sub-block: what the product left joins the residual, and the next norm follows.
void join_residual(const Stream& stream, const Projection& projection,
                   const ops::cuda::DeviceBuffer& post_norm, float eps, float layer_scalar,
                   const LayerPass& pass, const ops::cuda::NextNorm& next, Workspace& workspace) {
  ops::cuda::residual_norm(stream, {.num_rows = pass.real_rows,
                                    .hidden = projection.weight.out_features,
                                    .sums = projection.weight.partials(
                                        workspace.partials.as<float>(), pass.rows.num_rows),
                                    .scale = projection.scales[0],
                                    .post_weight = post_norm.as<uint16_t>(),
                                    .eps = eps,
                                    .layer_scalar = layer_scalar,
                                    .x = workspace.x.as<uint16_t>(),
                                    .next = next});
}

}  // namespace

base::Result<LayerWeights> load_layer(WeightUploader& uploader, const io::Checkpoint& checkpoint,
                                      int64_t index) {
  const io::TextConfig& text = checkpoint.config().text;
  LayerWeights layer;
  layer.config = text.layers[static_cast<size_t>(index)];
  layer.num_heads = static_cast<int>(text.num_attention_heads);
  layer.window =
      layer.config.type == io::LayerType::kSliding ? static_cast<int>(text.sliding_window) : 0;
  layer.writes_kv = checkpoint.config().kind == io::ModelKind::kTarget;
  const std::string prefix = fmt::format("layers.{}.", index);
  std::vector<std::string> qkv = {prefix + "self_attn.q_proj"};
  if (layer.writes_kv) {
    qkv.push_back(prefix + "self_attn.k_proj");
    if (!layer.config.k_eq_v) qkv.push_back(prefix + "self_attn.v_proj");
    layer.k_norm = uploader.vector(checkpoint.tensor(prefix + "self_attn.k_norm.weight"));
  }
  TANDEM_ASSIGN_OR_RETURN(layer.qkv, uploader.projection(checkpoint, qkv));
  TANDEM_ASSIGN_OR_RETURN(layer.o, uploader.projection(checkpoint, {prefix + "self_attn.o_proj"}));
  TANDEM_ASSIGN_OR_RETURN(
      layer.gate_up,
      uploader.gated_projection(checkpoint, prefix + "mlp.gate_proj", prefix + "mlp.up_proj"));
  TANDEM_ASSIGN_OR_RETURN(layer.down, uploader.projection(checkpoint, {prefix + "mlp.down_proj"}));
  const auto norm = [&](const char* name) {
    return uploader.vector(checkpoint.tensor(prefix + name + ".weight"));
  };
  layer.q_norm = norm("self_attn.q_norm");
  layer.query_scale = ops::cuda::attention_query_scale(
      static_cast<int>(layer.config.head_dim),
      largest_of(checkpoint.tensor(prefix + "self_attn.q_norm.weight")));
  layer.input_norm = norm("input_layernorm");
  layer.post_attention_norm = norm("post_attention_layernorm");
  layer.pre_feedforward_norm = norm("pre_feedforward_layernorm");
  layer.post_feedforward_norm = norm("post_feedforward_layernorm");
  layer.layer_scalar = scalar_of(checkpoint.tensor(prefix + "layer_scalar"));
  std::vector<float> inv_freq = ops::rope_inv_freq(layer.config.head_dim, layer.config.rope.theta,
                                                   layer.config.rope.partial_rotary_factor);
  layer.inv_freq = uploader.vector(core::TensorView(inv_freq.data(), core::DType::kF32,
                                                    {static_cast<int64_t>(inv_freq.size())}));
  return layer;
}

void run_layer(const Stream& stream, const LayerWeights& layer, float eps, const LayerPass& pass,
               const NextInput& next, Workspace& workspace) {
  const int n = pass.rows.num_rows;
  auto* operand = workspace.operand.as<uint16_t>();
  auto* partials = workspace.partials.as<float>();
  ops::cuda::product(stream, layer.qkv.weight, operand, n / 8, partials);
  prepare_heads(stream, layer, eps, pass, layer.qkv.weight.partials(partials, n), workspace);
  attend(stream, layer, pass, n / 8, workspace);
  ops::cuda::product(stream, layer.o.weight, operand, n / 8, partials);
  join_residual(stream, layer.o, layer.post_attention_norm, eps, 1.0F, pass,
                next_norm({.norm = layer.pre_feedforward_norm.as<uint16_t>(),
                           .input_scale = layer.gate_up.input_scale},
                          eps, n, workspace),
                workspace);
  multiply_gated(stream, layer, n, workspace);
  ops::cuda::product(stream, layer.down.weight, workspace.inner.data(), n / 8, partials,
                     ops::cuda::takes_gelu_product(layer.gate_up.weight)
                         ? ops::cuda::Follows::kProduct
                         : ops::cuda::Follows::kSmallKernel);
  join_residual(stream, layer.down, layer.post_feedforward_norm, eps, layer.layer_scalar, pass,
                next_norm(next, eps, n, workspace), workspace);
}

}  // namespace tandem::gpu
