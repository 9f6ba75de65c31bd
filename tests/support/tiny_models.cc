// make_tiny_target and make_tiny_assistant: configs and BF16 weights.
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "core/bf16.h"
#include "tests/support/tiny_checkpoint.h"
#include "tests/support/tiny_quantize.h"

namespace tandem::test_support {
namespace {

using core::DType;
using nlohmann::json;

// splitmix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // Sum of twelve uniforms: close enough to a normal distribution, and exact everywhere.
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

 private:
  uint64_t state_;
};

class Builder {
 public:
  Builder(TinyCheckpoint& checkpoint, uint64_t seed) : checkpoint_(checkpoint), random_(seed) {}

  void linear(const std::string& name, int64_t out, int64_t in) {
    fill(name + ".weight", {out, in}, 0, 1.0 / std::sqrt(static_cast<double>(in)));
  }
  void norm(const std::string& name, int64_t size) { fill(name + ".weight", {size}, 1, 0.1); }
  void fill(const std::string& name, const std::vector<int64_t>& shape, double mean,
            double deviation) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    std::string bytes(static_cast<size_t>(count) * 2, '\0');
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const auto value = core::to_bf16(static_cast<float>(mean + deviation * random_.normal()));
      std::memcpy(bytes.data() + 2 * i, &value.bits, 2);
    }
    checkpoint_.add(name, DType::kBF16, shape, std::move(bytes));
  }

 private:
  TinyCheckpoint& checkpoint_;
  Random random_;
};

struct TowerSizes {
  int64_t hidden;
  int64_t intermediate;
  std::string layers;
  std::string prefix;
  bool has_kv;
};

void add_layer(Builder& builder, const TinyOptions& options, const TowerSizes& tower,
               size_t index) {
  const bool full = tower.layers[index] == 'f';
  const int64_t head_dim = full ? options.global_head_dim : options.head_dim;
  const int64_t kv_heads = full && options.k_eq_v ? options.global_kv_heads : options.kv_heads;
  const std::string layer = fmt::format("{}layers.{}.", tower.prefix, index);
  for (const char* norm : {"input_layernorm", "post_attention_layernorm",
                           "pre_feedforward_layernorm", "post_feedforward_layernorm"})
    builder.norm(layer + norm, tower.hidden);
  builder.fill(layer + "layer_scalar", {1}, 0.9, 0.05);
  builder.linear(layer + "self_attn.q_proj", options.heads * head_dim, tower.hidden);
  builder.norm(layer + "self_attn.q_norm", head_dim);
  if (tower.has_kv) {
    builder.linear(layer + "self_attn.k_proj", kv_heads * head_dim, tower.hidden);
    builder.norm(layer + "self_attn.k_norm", head_dim);
    if (!(full && options.k_eq_v))
      builder.linear(layer + "self_attn.v_proj", kv_heads * head_dim, tower.hidden);
  }
  builder.linear(layer + "self_attn.o_proj", tower.hidden, options.heads * head_dim);
  builder.linear(layer + "mlp.gate_proj", tower.intermediate, tower.hidden);
  builder.linear(layer + "mlp.up_proj", tower.intermediate, tower.hidden);
  builder.linear(layer + "mlp.down_proj", tower.hidden, tower.intermediate);
}

void add_tower(Builder& builder, const TinyOptions& options, const TowerSizes& tower) {
  builder.fill(tower.prefix + "embed_tokens.weight", {options.vocab, tower.hidden}, 0, 0.1);
  builder.norm(tower.prefix + "norm", tower.hidden);
  for (size_t i = 0; i < tower.layers.size(); ++i) add_layer(builder, options, tower, i);
}

json layer_types(const std::string& layers) {
  json types = json::array();
  for (const char letter : layers)
    types.push_back(letter == 's' ? "sliding_attention" : "full_attention");
  return types;
}

// The published spelling (flat), or the one transformers 5.15 and later save.
void add_full_layer_sizes(json& text, const TinyOptions& options, const std::string& layers) {
  if (!options.per_layer_config) {
    text["global_head_dim"] = options.global_head_dim;
    text["num_global_key_value_heads"] = options.global_kv_heads;
    return;
  }
  json map = json::object();
  for (size_t i = 0; i < layers.size(); ++i)
    if (layers[i] == 'f')
      map[std::to_string(i)] = {{"head_dim", options.global_head_dim},
                                {"num_key_value_heads", options.global_kv_heads}};
  text["per_layer_config"] = map;
}

json text_config(const TinyOptions& options, bool is_assistant) {
  const std::string& layers = is_assistant ? options.assistant_layers : options.layers;
  json text = {
      {"attention_bias", false},
      {"attention_k_eq_v", options.k_eq_v},
      {"bos_token_id", 2},
      {"eos_token_id", 1},
      {"final_logit_softcapping", nullptr},
      {"head_dim", options.head_dim},
      {"hidden_activation", "gelu_pytorch_tanh"},
      {"hidden_size", is_assistant ? options.assistant_hidden : options.hidden},
      {"hidden_size_per_layer_input", 0},
      {"intermediate_size", is_assistant ? options.assistant_intermediate : options.intermediate},
      {"layer_types", layer_types(layers)},
      {"max_position_embeddings", options.max_positions},
      {"model_type", options.classic ? "gemma4_text" : "gemma4_unified_text"},
      {"num_attention_heads", options.heads},
      {"num_hidden_layers", layers.size()},
      {"num_key_value_heads", options.kv_heads},
      {"num_kv_shared_layers", is_assistant ? layers.size() : 0},
      {"pad_token_id", 0},
      {"rms_norm_eps", 1e-6},
      {"sliding_window", options.window},
      {"tie_word_embeddings", true},
      {"use_bidirectional_attention", "vision"},
      {"vocab_size", options.vocab}};
  text["rope_parameters"]["full_attention"] = {
      {"partial_rotary_factor", 0.25}, {"rope_theta", 1e6}, {"rope_type", "proportional"}};
  text["rope_parameters"]["sliding_attention"] = {{"rope_theta", 1e4}, {"rope_type", "default"}};
  if (!is_assistant && options.softcap > 0) text["final_logit_softcapping"] = options.softcap;
  add_full_layer_sizes(text, options, layers);
  return text;
}

void add_media(Builder& builder, const TinyOptions& options) {
  builder.norm("model.vision_embedder.patch_ln1", 12);
  builder.linear("model.vision_embedder.patch_dense", options.hidden, 12);
  builder.fill("model.vision_embedder.pos_embedding", {6, 2, options.hidden}, 0, 0.1);
  builder.linear("model.embed_vision.embedding_projection", options.hidden, options.hidden);
  builder.linear("model.embed_audio.embedding_projection", options.hidden, 10);
}

}  // namespace

TinyCheckpoint make_tiny_target(const TinyOptions& options) {
  TinyCheckpoint target;
  json text = text_config(options, false);
  if (options.text_only) {
    target.config = text;
  } else {
    target.config = {{"model_type", options.classic ? "gemma4" : "gemma4_unified"},
                     {"text_config", text}};
  }
  target.config["tie_word_embeddings"] = true;
  target.config["eos_token_id"] = {1, 50};
  target.config["dtype"] = "bfloat16";
  target.generation_config = {{"do_sample", true},
                              {"eos_token_id", {1, 50, 60}},
                              {"suppress_tokens", {7, 8}},
                              {"temperature", 1.0},
                              {"top_k", 64},
                              {"top_p", 0.95}};
  Builder builder(target, options.seed);
  add_tower(builder, options,
            {options.hidden, options.intermediate, options.layers, options.prefix, true});
  if (options.media_tensors) add_media(builder, options);
  quantize_tiny(target, options.target_format, {"lm_head"});
  if (options.kv_scales) add_tiny_kv_scales(target, options);
  return target;
}

TinyCheckpoint make_tiny_assistant(const TinyOptions& options) {
  TinyCheckpoint assistant;
  assistant.config = {
      {"model_type", options.classic ? "gemma4_assistant" : "gemma4_unified_assistant"},
      {"backbone_hidden_size", options.hidden},
      {"num_centroids", 2048},
      {"text_config", text_config(options, true)},
      {"tie_word_embeddings", true},
      {"dtype", "bfloat16"},
      {"use_ordered_embeddings", false}};
  assistant.generation_config = {{"eos_token_id", 1}, {"suppress_tokens", {7, 8}}};
  Builder builder(assistant, options.seed + 1);
  builder.linear("pre_projection", options.assistant_hidden, 2 * options.hidden);
  builder.linear("post_projection", options.hidden, options.assistant_hidden);
  add_tower(builder, options,
            {options.assistant_hidden, options.assistant_intermediate, options.assistant_layers,
             "model.", false});
  quantize_tiny(assistant, options.assistant_format,
                {"lm_head", "post_projection", "pre_projection"});
  return assistant;
}

}  // namespace tandem::test_support
