#include "gpu/models.h"

#include <algorithm>
#include <cmath>

#include "core/bf16.h"
#include "gpu/few_rows_head.h"
#include "gpu/step_plan.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/gelu_product.h"
#include "ops/cuda/head_argmax.h"

namespace tandem::gpu {
namespace {

using ops::cuda::Stream;

WorkspaceSizes sizes_of(const std::vector<LayerWeights>& layers,
                        std::initializer_list<const Projection*> others, int64_t max_model_len) {
  WorkspaceSizes sizes;
  const auto cover = [&](const Projection& projection) {
    sizes.cover({.operand_width = projection.weight.in_features,
                 .partial_bytes = projection.weight.partial_bytes(kMaxPassRows)});
  };
  for (const Projection* projection : others) cover(*projection);
  for (const LayerWeights& layer : layers) {
    for (const Projection* projection : {&layer.qkv, &layer.o, &layer.down}) cover(*projection);
    if (ops::cuda::takes_gelu_product(layer.gate_up.weight))
      sizes.cover({.operand_width = layer.gate_up.weight.in_features,
                   .exchange_bytes = static_cast<int64_t>(
                       ops::cuda::gelu_exchange_bytes(layer.gate_up.weight, kMaxPassRows))});
    else
      cover(layer.gate_up);
    const auto head_dim = static_cast<int>(layer.config.head_dim);
    const int64_t keys =
        layer.window > 0 ? std::min<int64_t>(max_model_len, layer.window + ops::cuda::kTileRows - 1)
                         : max_model_len;
    sizes.cover({.hidden = layer.qkv.weight.in_features,
                 .q_dim = layer.num_heads * layer.config.head_dim,
                 .attention_bytes = static_cast<int64_t>(ops::cuda::attention_workspace_bytes(
                     kMaxPassRows, layer.num_heads, head_dim,
                     ops::cuda::attention_max_segments(head_dim, keys))),
                 .inner_width = layer.down.weight.in_features});
  }
  return sizes;
}

// The layers one after the other; `last` is what follows the last one.
template <typename KvLayerOf>
void run_layers(const Stream& stream, const std::vector<LayerWeights>& layers, float eps,
                const Pass& pass, const KvCache& kv, const KvLayerOf& kv_layer_of,
                const NextInput& last, Workspace& workspace) {
  for (size_t i = 0; i < layers.size(); ++i) {
    const bool is_last = i + 1 == layers.size();
    const NextInput next = is_last ? last
                                   : NextInput{.norm = layers[i + 1].input_norm.as<uint16_t>(),
                                               .input_scale = layers[i + 1].qkv.input_scale};
    run_layer(stream, layers[i], eps, layer_pass(layers[i], pass, kv.layer(kv_layer_of(i))), next,
              workspace);
  }
}

ops::cuda::NextNorm first_norm(const std::vector<LayerWeights>& layers, float eps, int num_rows,
                               const Workspace& workspace) {
  return {.weight = layers.front().input_norm.as<uint16_t>(),
          .eps = eps,
          .operand = workspace.operand_for(num_rows, layers.front().qkv.input_scale)};
}

// What head_product() and screened_head() need; nothing where the head does not fit them.
ops::cuda::DeviceBuffer head_exchange_for(const Projection& head) {
  if (!ops::cuda::takes_head_product(head.weight, {})) return {};
  ops::cuda::DeviceBuffer exchange(ops::cuda::head_exchange_bytes(head.weight));
  TANDEM_CUDA_CHECK(cudaMemset(exchange.data(), 0, exchange.size_bytes()));
  return exchange;
}

ops::cuda::Partials multiply(const Stream& stream, const Projection& projection, int num_rows,
                             Workspace& workspace) {
  auto* partials = workspace.partials.as<float>();
  ops::cuda::product(stream, projection.weight, workspace.operand.data(), num_rows / 8, partials);
  return projection.weight.partials(partials, num_rows);
}

// The tokens of the rows in the operand, num_rows with the padding, and the side product.
void choose_tokens(const Stream& stream, const Projection& head,
                   const std::optional<Screen>& screen, const ops::cuda::DeviceBuffer& exchange,
                   const ops::cuda::SideProduct& side, int num_rows, ops::cuda::HeadArgmax argmax,
                   Workspace& workspace) {
  const void* const operand = workspace.operand.data();
  if (choose_in_head(stream, head, screen, exchange, side, operand, argmax)) return;
  if (side.weight != nullptr)
    ops::cuda::product(stream, *side.weight, operand, num_rows / 8, side.partials);
  static_assert(kMaxScreenedRows == 8 * ops::cuda::kMaxListedTiles);
  if (screen && ops::cuda::takes_screened_rows(head.weight, screen->weight, num_rows / 8)) {
    ops::cuda::screened_rows(stream, head.weight, screen->view(), operand, num_rows / 8,
                             workspace.partials.as<float>(), argmax);
    return;
  }
  if (ops::cuda::takes_head_argmax(head.weight, num_rows / 8, argmax.logits)) {
    ops::cuda::head_argmax(stream, head.weight, operand, num_rows / 8, argmax);
    return;
  }
  argmax.logits.sums = multiply(stream, head, num_rows, workspace);
  ops::cuda::argmax_rows(stream, argmax.logits, argmax.scratch, argmax.tokens,
                         argmax.draft.tokens == nullptr ? nullptr : &argmax.draft);
}

}  // namespace

LayerPass layer_pass(const LayerWeights& layer, const Pass& pass, const ops::cuda::KvLayer& kv) {
  const bool ring = layer.config.type == io::LayerType::kSliding;
  return {.rows = pass.rows,
          .real_rows = pass.real_rows,
          .tiles = pass.tiles,
          .places = ring ? pass.ring : pass.pages,
          .kv = kv,
          .max_keys = pass.max_keys,
          .list = pass.lists_attention ? (ring ? 0 : 1) : -1};
}

base::Result<Target> Target::load(WeightUploader& uploader, const io::Checkpoint& checkpoint,
                                  bool screens_head) {
  Target target;
  target.config_ = checkpoint.config().text;
  for (int64_t i = 0; i < target.config_.num_layers(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(LayerWeights layer, load_layer(uploader, checkpoint, i));
    target.layers_.push_back(std::move(layer));
  }
  const auto head = checkpoint.find("lm_head.weight");
  const bool is_tied = !head || target.config_.tie_word_embeddings;
  std::optional<Screen>* const screen = screens_head ? &target.screen_ : nullptr;
  TANDEM_ASSIGN_OR_RETURN(target.embed_,
                          uploader.matrix(checkpoint.tensor("embed_tokens.weight"),
                                          "embed_tokens.weight", is_tied ? screen : nullptr));
  if (!is_tied) {
    TANDEM_ASSIGN_OR_RETURN(target.head_, uploader.matrix(*head, "lm_head.weight", screen));
  }
  target.norm_ = uploader.vector(checkpoint.tensor("norm.weight"));
  target.head_exchange_ = head_exchange_for(target.head_projection());
  target.embed_scale_ =
      core::round_to_bf16(std::sqrt(static_cast<float>(target.config_.hidden_size)));
  return target;
}

WorkspaceSizes Target::workspace_sizes(int64_t max_model_len) const {
  return sizes_of(layers_, {&embed_}, max_model_len);
}

ops::cuda::EmbedTable Target::embed_table() const {
  return {.data = embed_.weight.data.as<uint8_t>(),
          .set_blocks = embed_.weight.set_blocks,
          .scale = embed_scale_};
}

void Target::list_attention(const Stream& stream, const Pass& pass, const KvCache& kv,
                            Workspace& workspace) const {
  for (const io::LayerType type : {io::LayerType::kSliding, io::LayerType::kFull}) {
    const auto layer = std::ranges::find(
        layers_, type, [](const LayerWeights& weights) { return weights.config.type; });
    if (layer == layers_.end()) continue;
    const LayerPass own = layer_pass(*layer, pass, kv.layer(layer - layers_.begin()));
    gpu::list_attention(stream, *layer, own, pass.rows.num_rows / 8, workspace);
  }
}

void Target::forward(const Stream& stream, const Pass& pass, const KvCache& kv, uint16_t* hidden,
                     Workspace& workspace) const {
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const int n = pass.rows.num_rows;
  ops::cuda::embed_norm(stream, {.num_rows = pass.real_rows,
                                 .hidden = static_cast<int>(config_.hidden_size),
                                 .tokens = pass.rows.tokens,
                                 .table = embed_table(),
                                 .x = workspace.x.as<uint16_t>(),
                                 .next = first_norm(layers_, eps, n, workspace)});
  run_layers(
      stream, layers_, eps, pass, kv, [](size_t i) { return static_cast<int64_t>(i); },
      {.norm = norm_.as<uint16_t>(), .input_scale = 0.0F, .normed_rows = hidden}, workspace);
}

void Target::choose(const Stream& stream, int num_rows, ops::cuda::HeadArgmax argmax,
                    Workspace& workspace) const {
  choose_tokens(stream, head_projection(), screen_, head_exchange_, {}, num_rows, argmax,
                workspace);
}

bool Target::find_likeliest(const Stream& stream, int num_rows, ops::cuda::HeadLikeliest job,
                            Workspace& workspace) const {
  if (!screen_) return false;
  const Projection& head = head_projection();
  job.logits.scale = head.scales[0];
  job.exchange = head_exchange_.data();
  const void* const operand = workspace.operand.data();
  if (takes_screened_head(head.weight, screen_->weight, {}, job.logits)) {
    screened_likeliest(stream, head.weight, screen_->view(), {}, operand, job);
    return true;
  }
  const int tiles = num_rows / 8;
  if (!ops::cuda::takes_likeliest_rows(head.weight, screen_->weight, tiles)) return false;
  screened_likeliest_rows(stream, head.weight, screen_->view(), operand, tiles,
                          workspace.partials.as<float>(), job);
  return true;
}

size_t Target::likeliest_bytes() const {
  return screen_ ? ops::cuda::likeliest_workspace_bytes(screen_->weight) : 0;
}

ops::cuda::Partials Target::head(const Stream& stream, int num_rows, Workspace& workspace) const {
  return multiply(stream, head_projection(), num_rows, workspace);
}

base::Result<Assistant> Assistant::load(WeightUploader& uploader, const io::Checkpoint& checkpoint,
                                        const io::Checkpoint& target, model::DraftHeadFormat head,
                                        bool screens_head) {
  Assistant assistant;
  assistant.config_ = checkpoint.config().text;
  assistant.kv_layers_ = io::shared_kv_layers(target.config(), checkpoint.config());
  for (int64_t i = 0; i < assistant.config_.num_layers(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(LayerWeights layer, load_layer(uploader, checkpoint, i));
    assistant.layers_.push_back(std::move(layer));
  }
  TANDEM_ASSIGN_OR_RETURN(assistant.pre_projection_,
                          uploader.projection(checkpoint, {"pre_projection"}));
  TANDEM_ASSIGN_OR_RETURN(assistant.post_projection_,
                          uploader.projection(checkpoint, {"post_projection"}));
  const std::string name =
      checkpoint.find("lm_head.weight") ? "lm_head.weight" : "embed_tokens.weight";
  const core::TensorView stored = checkpoint.tensor(name);
  if (head == model::DraftHeadFormat::kFp8) {
    TANDEM_ASSIGN_OR_RETURN(assistant.head_, uploader.rounded_matrix(stored, name));
  } else {
    TANDEM_ASSIGN_OR_RETURN(
        assistant.head_,
        uploader.matrix(stored, name, screens_head ? &assistant.screen_ : nullptr));
  }
  assistant.norm_ = uploader.vector(checkpoint.tensor("norm.weight"));
  assistant.head_exchange_ = head_exchange_for(assistant.head_);
  int64_t q_bytes = 0;
  for (const LayerWeights& layer : assistant.layers_)
    q_bytes = std::max(q_bytes, layer.qkv.weight.partial_bytes(8));
  assistant.q_sums_ = ops::cuda::DeviceBuffer(static_cast<size_t>(q_bytes));
  return assistant;
}

WorkspaceSizes Assistant::workspace_sizes(int64_t max_model_len) const {
  return sizes_of(layers_, {&pre_projection_, &post_projection_, &head_}, max_model_len);
}

ops::cuda::AssistantInput Assistant::input(const Target& target, const Pass& pass,
                                           const States& states, int num_rows) const {
  return {.num_rows = num_rows,
          .hidden = static_cast<int>(target.config().hidden_size),
          .tokens = pass.rows.tokens,
          .table = target.embed_table(),
          .states = states.store,
          .slots = states.slots,
          .state_sums = states.sums,
          .state_scale = post_projection_.scales[0],
          .operand = {.input_scale = pre_projection_.input_scale}};
}

void Assistant::start(const Stream& stream, int num_rows, int num_padded_rows,
                      Workspace& workspace) const {
  ops::cuda::start_layer(
      stream,
      {.num_rows = num_rows,
       .hidden = static_cast<int>(config_.hidden_size),
       .sums = pre_projection_.weight.partials(workspace.partials.as<float>(), num_padded_rows),
       .scale = pre_projection_.scales[0],
       .x = workspace.x.as<uint16_t>(),
       .next = first_norm(layers_, static_cast<float>(config_.rms_norm_eps), num_padded_rows,
                          workspace)});
}

void Assistant::step(const Stream& stream, const Target& target, const Pass& pass,
                     const KvCache& kv, States& states, float* next_state,
                     ops::cuda::HeadArgmax argmax, Workspace& workspace) const {
  const int n = pass.rows.num_rows;
  const States before = states;
  states = {.store = nullptr,
            .slots = states.slots,
            .sums = post_projection_.weight.partials(next_state, n)};
  if (runs_few(argmax.logits))
    return step_few(stream, target, pass, kv, before, next_state, argmax, workspace);
  ops::cuda::AssistantInput first = input(target, pass, before, n);
  first.operand = workspace.operand_for(n, pre_projection_.input_scale);
  ops::cuda::assistant_input(stream, first);
  multiply(stream, pre_projection_, n, workspace);
  start(stream, n, n, workspace);
  // z goes to two products, the head and post_projection, both with BF16 weights.
  run_layers(
      stream, layers_, static_cast<float>(config_.rms_norm_eps), pass, kv,
      [this](size_t i) { return kv_layers_[i]; },
      {.norm = norm_.as<uint16_t>(), .input_scale = post_projection_.input_scale}, workspace);
  choose_tokens(stream, head_, screen_, head_exchange_, {&post_projection_.weight, next_state}, n,
                argmax, workspace);
}

}  // namespace tandem::gpu
