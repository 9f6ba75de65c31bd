#include "io/tensor_requirements.h"

namespace tandem::io {
namespace {

std::string layer_prefix(size_t index) {
  return fmt::format("layers.{}.", index);
}

void add_attention(const ModelConfig& config, size_t index, std::vector<RequiredLinear>& linears) {
  const TextConfig& text = config.text;
  const LayerConfig& layer = text.layers[index];
  const std::string prefix = layer_prefix(index) + "self_attn.";
  const int64_t q_size = text.num_attention_heads * layer.head_dim;
  const int64_t kv_size = layer.num_key_value_heads * layer.head_dim;
  linears.push_back({prefix + "q_proj", q_size, text.hidden_size});
  if (config.kind == ModelKind::kTarget) {
    linears.push_back({prefix + "k_proj", kv_size, text.hidden_size});
    if (!layer.k_eq_v) linears.push_back({prefix + "v_proj", kv_size, text.hidden_size});
  }
  linears.push_back({prefix + "o_proj", text.hidden_size, q_size});
}

void add_mlp(const TextConfig& text, size_t index, std::vector<RequiredLinear>& linears) {
  const std::string prefix = layer_prefix(index) + "mlp.";
  linears.push_back({prefix + "gate_proj", text.intermediate_size, text.hidden_size});
  linears.push_back({prefix + "up_proj", text.intermediate_size, text.hidden_size});
  linears.push_back({prefix + "down_proj", text.hidden_size, text.intermediate_size});
}

}  // namespace

std::vector<RequiredTensor> required_tensors(const ModelConfig& config) {
  const TextConfig& text = config.text;
  const core::Shape hidden{text.hidden_size};
  const core::Shape table{text.vocab_size, text.hidden_size};
  std::vector<RequiredTensor> tensors;
  tensors.push_back({"embed_tokens.weight", table});
  tensors.push_back({"norm.weight", hidden});
  // A tied head is normally not written; text-only exports may repeat it.
  tensors.push_back({"lm_head.weight", table, text.tie_word_embeddings});
  for (size_t i = 0; i < text.layers.size(); ++i) {
    const std::string prefix = layer_prefix(i);
    for (const char* norm : {"input_layernorm", "post_attention_layernorm",
                             "pre_feedforward_layernorm", "post_feedforward_layernorm"})
      tensors.push_back({prefix + norm + ".weight", hidden});
    tensors.push_back({prefix + "layer_scalar", core::Shape{1}});
    const core::Shape head{text.layers[i].head_dim};
    tensors.push_back({prefix + "self_attn.q_norm.weight", head});
    if (config.kind == ModelKind::kTarget)
      tensors.push_back({prefix + "self_attn.k_norm.weight", head});
  }
  return tensors;
}

std::vector<RequiredLinear> required_linears(const ModelConfig& config) {
  const TextConfig& text = config.text;
  const bool is_assistant = config.kind == ModelKind::kAssistant;
  std::vector<RequiredLinear> linears;
  if (is_assistant)
    linears.push_back({"pre_projection", text.hidden_size, 2 * config.backbone_hidden_size, true});
  for (size_t i = 0; i < text.layers.size(); ++i) {
    add_attention(config, i, linears);
    add_mlp(text, i, linears);
  }
  if (is_assistant)
    linears.push_back({"post_projection", config.backbone_hidden_size, text.hidden_size, true});
  return linears;
}

}  // namespace tandem::io
