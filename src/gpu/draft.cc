// A draft step of few rows: its time is the number of kernels one behind the other and not bytes,
// so norms, inputs and the argmax are done by the products around them.
#include <algorithm>

#include "base/check.h"
#include "gpu/few_rows_head.h"
#include "gpu/models.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/row_product.h"

namespace tandem::gpu {
namespace {

using ops::cuda::NormedRows;
using ops::cuda::Stream;

// The sums that a product of [hidden] features left in the workspace, as the next one's input.
NormedRows after(const Projection& projection, float eps, const Workspace& workspace) {
  NormedRows rows;
  rows.hidden = projection.weight.out_features;
  rows.sums = projection.weight.partials(workspace.partials.as<float>(), 8);
  rows.scale = projection.scales[0];
  rows.eps = rows.next_eps = eps;
  return rows;
}

// The residual alternates between two buffers: a product's blocks all read the one while the first
// of them writes the other.
void join(NormedRows& rows, const uint16_t* post_norm, float layer_scalar, const uint16_t* x,
          Workspace& workspace) {
  rows.post_weight = post_norm;
  rows.layer_scalar = layer_scalar;
  rows.x = x;
  auto* const one = workspace.x.as<uint16_t>();
  rows.new_x = x == one ? workspace.other_x.as<uint16_t>() : one;
}

// With more rows thread blocks would make some of them twice.
bool makes_queries(const LayerWeights& layer, int num_rows) {
  const auto group = static_cast<int>(layer.num_heads / layer.config.num_key_value_heads);
  return num_rows == 1 &&
         ops::cuda::attention_makes_queries(static_cast<int>(layer.config.head_dim), group);
}

}  // namespace

bool Assistant::runs_few(const ops::cuda::HeadLogits& logits) const {
  if (logits.num_rows > ops::cuda::kFewRows ||
      !ops::cuda::takes_head_product(head_.weight, {&post_projection_.weight, nullptr}, logits))
    return false;
  const auto fits = [](const Projection& projection) {
    return ops::cuda::takes_row_product(projection.weight);
  };
  const auto normed = [this](const Projection& projection) {
    return ops::cuda::takes_normed_rows(projection.weight.partials(nullptr, 8),
                                        static_cast<int>(config_.hidden_size));
  };
  return fits(pre_projection_) && std::ranges::all_of(layers_, [&](const LayerWeights& layer) {
           return fits(layer.qkv) && fits(layer.o) && normed(layer.o) && fits(layer.gate_up) &&
                  fits(layer.down) && normed(layer.down);
         });
}

void Assistant::layer_few(const Stream& stream, size_t index, const LayerPass& pass,
                          NormedRows& rows, Workspace& workspace) const {
  const LayerWeights& layer = layers_[index];
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const int n = pass.real_rows;
  auto* partials = workspace.partials.as<float>();
  const uint16_t* x = workspace.x.as<uint16_t>();
  if (rows.hidden == 0) {
    ops::cuda::row_product(stream, layer.qkv.weight, workspace.operand.data(), n,
                           {.partials = q_sums_.as<float>()});
  } else {
    rows.weight = layer.input_norm.as<uint16_t>();
    rows.input_scale = layer.qkv.input_scale;
    x = rows.new_x;
    ops::cuda::row_product(stream, layer.qkv.weight, rows, n, {.partials = q_sums_.as<float>()});
  }
  const ops::cuda::Partials queries = layer.qkv.weight.partials(q_sums_.as<float>(), 8);
  if (makes_queries(layer, n)) {
    attend_sums(stream, layer, eps, pass, queries, workspace);
  } else {
    prepare_heads(stream, layer, eps, pass, queries, workspace);
    attend(stream, layer, pass, 1, workspace);
  }
  ops::cuda::row_product(stream, layer.o.weight, workspace.operand.data(), n,
                         {.partials = partials});
  rows = after(layer.o, eps, workspace);
  join(rows, layer.post_attention_norm.as<uint16_t>(), 1.0F, x, workspace);
  rows.weight = layer.pre_feedforward_norm.as<uint16_t>();
  rows.input_scale = layer.gate_up.input_scale;
  x = rows.new_x;
  ops::cuda::row_product(stream, layer.gate_up.weight, rows, n,
                         {.gate_scale = layer.gate_up.scales[0],
                          .up_scale = layer.gate_up.scales[1],
                          .joined = workspace.inner_operand_for(8, layer.down.input_scale)});
  ops::cuda::row_product(stream, layer.down.weight, workspace.inner.data(), n,
                         {.partials = partials});
  rows = after(layer.down, eps, workspace);
  join(rows, layer.post_feedforward_norm.as<uint16_t>(), layer.layer_scalar, x, workspace);
}

void Assistant::step_few(const Stream& stream, const Target& target, const Pass& pass,
                         const KvCache& kv, const States& states, float* next_state,
                         ops::cuda::HeadArgmax argmax, Workspace& workspace) const {
  const int n = pass.real_rows;
  ops::cuda::AssistantInput first = input(target, pass, states, n);
  first.operand.input_scale = pre_projection_.input_scale;
  ops::cuda::row_product(stream, pre_projection_.weight, first,
                         {.partials = workspace.partials.as<float>()});
  // Its sums have too many pieces for every thread block to add them up.
  start(stream, n, 8, workspace);
  NormedRows rows;  // none: the first layer's operand is there
  for (size_t i = 0; i < layers_.size(); ++i)
    layer_few(stream, i, layer_pass(layers_[i], pass, kv.layer(kv_layers_[i])), rows, workspace);
  rows.new_x = nullptr;
  rows.weight = norm_.as<uint16_t>();
  rows.input_scale = post_projection_.input_scale;
  const bool chosen = choose_in_head(stream, head_, screen_, head_exchange_,
                                     {&post_projection_.weight, next_state}, rows, argmax);
  TANDEM_CHECK(chosen);  // runs_few()
}

}  // namespace tandem::gpu
