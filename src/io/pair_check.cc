// Whether an assistant can draft for a target, decided on the configs alone.
#include "io/model_config.h"

#include "base/check.h"

namespace tandem::io {
namespace {

const char* type_name(LayerType type) {
  return type == LayerType::kSliding ? "sliding_attention" : "full_attention";
}

const LayerConfig* last_of_type(const TextConfig& text, LayerType type) {
  for (auto layer = text.layers.rbegin(); layer != text.layers.rend(); ++layer)
    if (layer->type == type) return &*layer;
  return nullptr;
}

// An assistant layer reads the cached K and V of the target as they are.
base::Status check_layer(const TextConfig& target, size_t index, const LayerConfig& layer) {
  const std::string where =
      fmt::format("pair: assistant layer {} ({})", index, type_name(layer.type));
  const LayerConfig* source = last_of_type(target, layer.type);
  if (source == nullptr)
    return base::invalid("{}: expected a target layer of that type to read KV from, got none",
                         where);
  if (layer.head_dim != source->head_dim)
    return base::invalid("{}: head_dim: expected the target's {}, got {}", where, source->head_dim,
                         layer.head_dim);
  if (layer.num_key_value_heads != source->num_key_value_heads)
    return base::invalid("{}: num_key_value_heads: expected the target's {}, got {}", where,
                         source->num_key_value_heads, layer.num_key_value_heads);
  if (layer.rope.theta != source->rope.theta)
    return base::invalid("{}: rope_theta: expected the target's {}, got {}", where,
                         source->rope.theta, layer.rope.theta);
  if (layer.rope.partial_rotary_factor != source->rope.partial_rotary_factor)
    return base::invalid("{}: partial_rotary_factor: expected the target's {}, got {}", where,
                         source->rope.partial_rotary_factor, layer.rope.partial_rotary_factor);
  return {};
}

base::Status check_special_ids(const ModelConfig& target, const ModelConfig& assistant) {
  for (const NamedTokenId& mine : assistant.special_token_ids)
    for (const NamedTokenId& theirs : target.special_token_ids)
      if (mine.key == theirs.key && mine.id != theirs.id)
        return base::invalid("pair: {}: expected the assistant to have the target's {}, got {}",
                             mine.key, theirs.id, mine.id);
  return {};
}

}  // namespace

base::Status require_target(const std::filesystem::path& dir, const ModelConfig& config) {
  if (config.kind == ModelKind::kTarget) return {};
  return base::invalid(
      "{}: expected a target model, got an assistant (model_type {}): an assistant is no "
      "standalone "
      "text model, it drafts for a target. Give a target folder with hidden_size {} as the first "
      "argument and this folder as --speculative-config '{{\"model\": \"{}\", "
      "\"num_speculative_tokens\": 4}}'",
      dir.string(), config.model_type, config.backbone_hidden_size, dir.string());
}

base::Status require_assistant(const std::filesystem::path& dir, const ModelConfig& config) {
  if (config.kind == ModelKind::kAssistant) return {};
  return base::invalid(
      "{}: expected an assistant (gemma4_unified_assistant or gemma4_assistant), got a target "
      "(model_type {}): give it as the first argument, and an assistant with backbone_hidden_size "
      "{} in --speculative-config",
      dir.string(), config.model_type, config.text.hidden_size);
}

base::Status check_pair(const ModelConfig& target, const ModelConfig& assistant) {
  if (target.kind != ModelKind::kTarget)
    return base::invalid("pair: expected a target first, got an assistant (model_type {})",
                         target.model_type);
  if (assistant.kind != ModelKind::kAssistant)
    return base::invalid("pair: expected an assistant second, got a target (model_type {})",
                         assistant.model_type);
  if (assistant.backbone_hidden_size != target.text.hidden_size)
    return base::invalid(
        "pair: backbone_hidden_size: expected {} (the target's hidden_size), got {}; this "
        "assistant "
        "belongs to another target",
        target.text.hidden_size, assistant.backbone_hidden_size);
  if (assistant.text.vocab_size != target.text.vocab_size)
    return base::invalid("pair: vocab_size: expected {} (the target's), got {} in the assistant",
                         target.text.vocab_size, assistant.text.vocab_size);
  if (last_of_type(assistant.text, LayerType::kSliding) != nullptr &&
      assistant.text.sliding_window != target.text.sliding_window)
    return base::invalid(
        "pair: sliding_window: expected {} (the target's), got {} in the assistant",
        target.text.sliding_window, assistant.text.sliding_window);
  for (size_t i = 0; i < assistant.text.layers.size(); ++i)
    TANDEM_RETURN_IF_ERROR(check_layer(target.text, i, assistant.text.layers[i]));
  return check_special_ids(target, assistant);
}

std::vector<int64_t> shared_kv_layers(const ModelConfig& target, const ModelConfig& assistant) {
  std::vector<int64_t> sources;
  for (const LayerConfig& layer : assistant.text.layers) {
    const LayerConfig* source = last_of_type(target.text, layer.type);
    TANDEM_CHECK(source != nullptr);
    sources.push_back(source - target.text.layers.data());
  }
  return sources;
}

}  // namespace tandem::io
