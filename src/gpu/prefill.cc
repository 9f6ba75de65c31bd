#include "gpu/prefill.h"

#include <algorithm>

#include "gpu/models.h"
#include "ops/cuda/wide_attention.h"
#include "ops/cuda/wide_keys.h"

namespace tandem::gpu {
namespace {

using ops::cuda::Stream;

// BF16(sum * scale) of a product's parts, in `workspace.product`.
void multiply(const Stream& stream, const Projection& projection, const std::array<int, 3>& ends,
              const ops::cuda::WideOperand& operand, int num_rows, const WideWorkspace& workspace) {
  ops::cuda::wide_product(
      stream, projection.weight, operand, num_rows, {.ends = ends, .scales = projection.scales},
      workspace.product.as<uint16_t>(), {.num_multiprocessors = workspace.num_multiprocessors});
}

ops::cuda::WideNorm next_norm(const NextInput& next, float eps, const WideWorkspace& workspace) {
  ops::cuda::WideNorm norm{.weight = next.norm, .eps = eps, .operand = {}, .normed = nullptr};
  if (next.normed_rows != nullptr)
    norm.normed = next.normed_rows;
  else
    norm.operand = workspace.operand_for(next.input_scale);
  return norm;
}

void project(const Stream& stream, const LayerWeights& layer, float eps, const WidePass& pass,
             const ops::cuda::KvLayer& kv, const ops::cuda::KvLayer& chunk,
             const WideWorkspace& workspace) {
  const auto head_dim = static_cast<int>(layer.config.head_dim);
  const auto num_kv_heads = static_cast<int>(layer.config.num_key_value_heads);
  const int q_end = layer.num_heads * head_dim;
  multiply(stream, layer.qkv,
           {q_end, q_end + num_kv_heads * head_dim, layer.qkv.weight.out_features},
           workspace.operand_for(layer.qkv.input_scale), pass.rows.num_rows, workspace);
  ops::cuda::wide_heads(stream, pass.rows,
                        {.product = workspace.product.as<uint16_t>(),
                         .num_heads = layer.num_heads,
                         .num_kv_heads = num_kv_heads,
                         .head_dim = head_dim,
                         .k_eq_v = layer.config.k_eq_v,
                         .eps = eps,
                         .q_norm = layer.q_norm.as<uint16_t>(),
                         .k_norm = layer.k_norm.as<uint16_t>(),
                         .inv_freq = layer.inv_freq.as<float>(),
                         .q = workspace.q.as<uint16_t>(),
                         .chunk = chunk,
                         .kv = kv,
                         .places = pass.pages});
}

// The keys of a group's sequences once, then its rows.
void attend_widened(const Stream& stream, const WidePass& pass, ops::cuda::WideAttention job,
                    const WideWorkspace& workspace) {
  job.widened = {.k = workspace.widened_k.as<uint16_t>(), .v = workspace.widened_v.as<uint16_t>()};
  for (const PlannedWideGroup& group : pass.groups) {
    const ops::cuda::WideTiles tiles = pass.tiles.part(group.first_tile, group.num_tiles);
    ops::cuda::widen_keys(stream, pass.rows, tiles,
                          {.num_kv_heads = job.num_kv_heads,
                           .head_dim = job.head_dim,
                           .kv = job.kv,
                           .places = job.places,
                           .k = workspace.widened_k.as<uint16_t>(),
                           .v = workspace.widened_v.as<uint16_t>(),
                           .blocks_of_tile = group.blocks_of_tile});
    ops::cuda::wide_attention(stream, pass.rows, tiles, job);
  }
}

void attend(const Stream& stream, const LayerWeights& layer, const WidePass& pass,
            const ops::cuda::KvLayer& kv, const ops::cuda::KvLayer& chunk,
            const WideWorkspace& workspace) {
  const auto head_dim = static_cast<int>(layer.config.head_dim);
  const auto num_kv_heads = static_cast<int>(layer.config.num_key_value_heads);
  const bool sliding = layer.window > 0;
  ops::cuda::WideAttention job;
  job.num_heads = layer.num_heads;
  job.num_kv_heads = num_kv_heads;
  job.head_dim = head_dim;
  job.window = layer.window;
  job.q = workspace.q.as<uint16_t>();
  job.kv = kv;
  job.places = sliding ? pass.ring : pass.pages;
  job.chunk = chunk;
  job.out = workspace.operand_for(layer.o.input_scale);
  if (workspace.widened_rows > 0 && widens_keys(layer.config, layer.num_heads))
    return attend_widened(stream, pass, job, workspace);
  ops::cuda::wide_attention(stream, pass.rows, pass.tiles, job);
  if (sliding)
    ops::cuda::store_ring(stream, pass.rows, pass.tiles,
                          {.num_kv_heads = num_kv_heads,
                           .head_dim = head_dim,
                           .chunk = chunk,
                           .kv = kv,
                           .places = pass.ring});
}

// A product that ends a sub-block, and what joins it to the residual.
void finish_block(const Stream& stream, const Projection& projection,
                  const ops::cuda::WideOperand& operand, const ops::cuda::DeviceBuffer& post_norm,
                  float eps, float layer_scalar, int num_rows, const NextInput& next,
                  const WideWorkspace& workspace) {
  const int hidden = projection.weight.out_features;
  multiply(stream, projection, {hidden, hidden, hidden}, operand, num_rows, workspace);
  ops::cuda::wide_residual(stream, {.num_rows = num_rows,
                                    .hidden = hidden,
                                    .y = workspace.product.as<uint16_t>(),
                                    .post_weight = post_norm.as<uint16_t>(),
                                    .eps = eps,
                                    .layer_scalar = layer_scalar,
                                    .x = workspace.x.as<uint16_t>(),
                                    .next = next_norm(next, eps, workspace)});
}

bool runs_wide(const LayerWeights& layer) {
  constexpr std::array<int64_t, 5> kHeadDims = {32, 64, 128, 256, 512};
  for (const Projection* projection : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
    if (projection->weight.type != ops::cuda::PackedType::kFp8) return false;
  return std::ranges::find(kHeadDims, layer.config.head_dim) != kHeadDims.end() &&
         layer.num_heads / layer.config.num_key_value_heads <= ops::cuda::kWideTileRows &&
         layer.gate_up.weight.out_features % 128 == 0;
}

}  // namespace

bool runs_wide(const std::vector<LayerWeights>& layers) {
  return ops::cuda::has_warpgroup_products() &&
         std::ranges::all_of(layers, [](const LayerWeights& layer) { return runs_wide(layer); });
}

void run_wide_layer(const Stream& stream, const LayerWeights& layer, float eps,
                    const WidePass& pass, const ops::cuda::KvLayer& kv, const NextInput& next,
                    const WideWorkspace& workspace) {
  const int n = pass.rows.num_rows;
  ops::cuda::KvLayer chunk;
  if (layer.window > 0)
    chunk = {workspace.chunk_k.as<uint16_t>(), workspace.chunk_v.as<uint16_t>()};
  project(stream, layer, eps, pass, kv, chunk, workspace);
  attend(stream, layer, pass, kv, chunk, workspace);
  finish_block(
      stream, layer.o, workspace.operand_for(layer.o.input_scale), layer.post_attention_norm, eps,
      1.0F, n,
      {.norm = layer.pre_feedforward_norm.as<uint16_t>(), .input_scale = layer.gate_up.input_scale},
      workspace);
  const auto inner = workspace.inner_operand_for(layer.down.input_scale);
  ops::cuda::wide_gelu_product(
      stream, layer.gate_up.weight, workspace.operand_for(layer.gate_up.input_scale), n,
      {.gate_scale = layer.gate_up.scales[0], .up_scale = layer.gate_up.scales[1], .out = inner},
      {.num_multiprocessors = workspace.num_multiprocessors});
  finish_block(stream, layer.down, inner, layer.post_feedforward_norm, eps, layer.layer_scalar, n,
               next, workspace);
}

bool Target::runs_wide() const {
  return gpu::runs_wide(layers_);
}

void Target::forward_wide(const Stream& stream, const WidePass& pass, const KvCache& kv,
                          const WideWorkspace& workspace) const {
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const auto next_of = [&](size_t i) {
    if (i == layers_.size())
      return NextInput{.norm = norm_.as<uint16_t>(),
                       .normed_rows = workspace.hidden.as<uint16_t>()};
    return NextInput{.norm = layers_[i].input_norm.as<uint16_t>(),
                     .input_scale = layers_[i].qkv.input_scale};
  };
  ops::cuda::wide_embed(stream, {.num_rows = pass.rows.num_rows,
                                 .hidden = static_cast<int>(config_.hidden_size),
                                 .tokens = pass.rows.tokens,
                                 .table = embed_table(),
                                 .x = workspace.x.as<uint16_t>(),
                                 .next = next_norm(next_of(0), eps, workspace)});
  for (size_t i = 0; i < layers_.size(); ++i)
    run_wide_layer(stream, layers_[i], eps, pass, kv.layer(static_cast<int64_t>(i)), next_of(i + 1),
                   workspace);
}

}  // namespace tandem::gpu
