#include "gpu/prefill.h"

#include <algorithm>

#include "gpu/pair_step.h"
#include "ops/cuda/wide_attention.h"
#include "ops/cuda/wide_keys.h"

namespace tandem::gpu {
namespace {

using ops::cuda::Stream;

size_t bytes_of(int64_t rows, int64_t columns, int64_t element_bytes) {
  return static_cast<size_t>(rows * columns * element_bytes);
}

size_t operand_bytes(int64_t width, int64_t capacity) {
  return static_cast<size_t>(
      ops::cuda::wide_operand_bytes(static_cast<int>(width), static_cast<int>(capacity)));
}

int64_t operand_width(const WideSizes& sizes) {
  return std::max(sizes.hidden, sizes.q_dim);
}

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

// A plan counts the thread blocks of widen_keys().
static_assert(widened_rows_of(1) == ops::cuda::kWidenedTogether);

// Most bytes for widened keys and values: those of 131,072 positions of the 31B.
constexpr size_t kMostWidenedBytes = size_t{1} << 30;

bool widens_keys(const io::LayerConfig& layer, int64_t num_heads) {
  return layer.type == io::LayerType::kFull &&
         ops::cuda::takes_widened_keys(static_cast<int>(num_heads),
                                       static_cast<int>(layer.num_key_value_heads),
                                       static_cast<int>(layer.head_dim));
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

WideSizes wide_sizes(const io::TextConfig& target, core::DType kv_dtype, int64_t max_model_len) {
  WideSizes sizes{.hidden = target.hidden_size};
  sizes.product = target.hidden_size;
  sizes.intermediate = target.intermediate_size;
  for (const io::LayerConfig& layer : target.layers) {
    const int64_t kv_dim = layer.num_key_value_heads * layer.head_dim;
    const int64_t q_dim = target.num_attention_heads * layer.head_dim;
    sizes.q_dim = std::max(sizes.q_dim, q_dim);
    sizes.product = std::max(sizes.product, q_dim + (layer.k_eq_v ? 1 : 2) * kv_dim);
    if (layer.type == io::LayerType::kSliding) sizes.chunk = std::max(sizes.chunk, kv_dim);
    if (kv_dtype == core::DType::kF8E4M3 && widens_keys(layer, target.num_attention_heads))
      sizes.widened = std::max(sizes.widened, kv_dim);
  }
  if (sizes.widened == 0) return sizes;
  const int64_t rows = widened_rows_of(max_model_len);
  if (bytes_of(rows, 2 * sizes.widened, 2) <= kMostWidenedBytes) sizes.widened_rows = rows;
  return sizes;
}

int64_t WideSizes::most_bytes(int64_t capacity) const {
  const size_t keys = widened == 0        ? 0
                      : widened_rows == 0 ? kMostWidenedBytes
                                          : bytes_of(widened_rows, 2 * widened, 2);
  return static_cast<int64_t>(bytes_of(capacity, 2 * hidden + product + q_dim + 2 * chunk, 2) +
                              operand_bytes(operand_width(*this), capacity) +
                              operand_bytes(intermediate, capacity) + keys);
}

WideWorkspace::WideWorkspace(const WideSizes& sizes, int64_t max_step_rows, int num_sms)
    : capacity(static_cast<int>(wide_capacity(max_step_rows))),
      num_multiprocessors(num_sms),
      x(bytes_of(capacity, sizes.hidden, 2)),
      product(bytes_of(capacity, sizes.product, 2)),
      q(bytes_of(capacity, sizes.q_dim, 2)),
      chunk_k(bytes_of(capacity, sizes.chunk, 2)),
      chunk_v(bytes_of(capacity, sizes.chunk, 2)),
      operand(operand_bytes(operand_width(sizes), capacity)),
      inner_operand(operand_bytes(sizes.intermediate, capacity)),
      hidden(bytes_of(capacity, sizes.hidden, 2)),
      widened_rows(sizes.widened_rows),
      widened_k(bytes_of(sizes.widened_rows, sizes.widened, 2)),
      widened_v(bytes_of(sizes.widened_rows, sizes.widened, 2)) {
  // A tile's rows beyond the last one are multiplied too, whatever they are.
  for (const auto* buffer : {&operand, &inner_operand})
    TANDEM_CUDA_CHECK(cudaMemset(buffer->data(), 0, buffer->size_bytes()));
}

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

void PairStep::record_wide(const StepLayout& layout, size_t end) {
  const ControlView& c = control_.device();
  for (; next_wide_ < end; ++next_wide_) {
    const PlannedWidePass& planned = layout.wide[next_wide_];
    const auto row = static_cast<int64_t>(next_wide_) * wide_->capacity;
    const auto tile = static_cast<int64_t>(next_wide_) * control_.sizes().wide_tiles;
    const WidePass pass{.rows = {.num_rows = static_cast<int>(planned.rows.size()),
                                 .tokens = c.wide_tokens + row,
                                 .positions = c.wide_positions + row,
                                 .last_keys = c.wide_positions + row,
                                 .sequences = c.wide_sequences + row},
                        .tiles = {.num_tiles = static_cast<int>(planned.tiles.size()),
                                  .first_rows = c.wide_tile_first_rows + tile,
                                  .num_rows = c.wide_tile_num_rows + tile,
                                  .chunk_begins = c.wide_tile_begins + tile,
                                  .chunk_ends = c.wide_tile_ends + tile,
                                  .widened_rows = c.wide_tile_widened_rows + tile},
                        .ring = ring_table(),
                        .pages = page_table(),
                        .groups = planned.groups};
    target_.forward_wide(stream_, pass, kv_, *wide_);
  }
}

void PairStep::record_gather(const PlannedPass& planned, int64_t offset) {
  const int n = planned.num_padded_rows();
  ops::cuda::gather_rows(stream_, wide_->hidden.as<uint16_t>(), control_.device().sources + offset,
                         n, static_cast<int>(target_.config().hidden_size),
                         hidden_.as<uint16_t>() + offset * target_.config().hidden_size,
                         workspace_.operand_for(n, 0.0F));
}

}  // namespace tandem::gpu
