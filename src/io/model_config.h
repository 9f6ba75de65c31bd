// config.json of the Gemma 4 family as Tandem needs it. Field names follow Hugging Face.
// Source of every field: transformers' configuration of gemma4_unified, gemma4, and their
// assistants; flat and per-layer spellings are both read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tandem::io {

enum class ModelKind {
  kTarget,     // gemma4_unified, gemma4_unified_text, gemma4, gemma4_text
  kAssistant,  // gemma4_unified_assistant, gemma4_assistant
};

enum class LayerType { kSliding, kFull };

struct RopeConfig {
  double theta = 1e4;
  // Share of the head that rotates. "default" has 1; "proportional" has partial_rotary_factor, and
  // its exponents still divide by the whole head size.
  double partial_rotary_factor = 1.0;
};

struct LayerConfig {
  LayerType type = LayerType::kSliding;
  int64_t head_dim = 0;
  int64_t num_key_value_heads = 0;
  bool k_eq_v = false;  // full layers of attention_k_eq_v models: V is the raw K projection
  RopeConfig rope;
};

// The text tower of a target, or the whole assistant.
struct TextConfig {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_attention_heads = 0;
  int64_t vocab_size = 0;
  int64_t sliding_window = 0;  // keys a sliding query sees, itself included
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double final_logit_softcapping = 0;  // 0: none
  bool tie_word_embeddings = true;
  std::vector<LayerConfig> layers;  // num_hidden_layers

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
};

// A special id config.json names, for the comparison of a pair ("image_token_id", "eoa_token_id").
struct NamedTokenId {
  std::string key;
  int32_t id = 0;
};

struct ModelConfig {
  ModelKind kind = ModelKind::kTarget;
  std::string model_type;  // as the file says
  TextConfig text;
  int64_t backbone_hidden_size = 0;  // assistants: the target's hidden_size
  std::vector<int32_t>
      eos_token_ids;  // targets: config.json's; generation_config.json's are better
  std::vector<int32_t> modality_token_ids;      // image, audio, video ids a text-only run refuses
  std::vector<NamedTokenId> special_token_ids;  // those below vocab_size
};

// Reads DIR/config.json, changed by `hf_overrides` (config_json.h). Errors name the key:
// `config.json: text_config: hidden_size: expected ...`.
base::Result<ModelConfig> read_model_config(const std::filesystem::path& dir,
                                            std::string_view hf_overrides = {});

// A target where a target is needed: an assistant says that it is no standalone text model and what
// it needs. `dir` is the folder the user gave.
base::Status require_target(const std::filesystem::path& dir, const ModelConfig& config);
// An assistant where an assistant is needed (--speculative-config's "model").
base::Status require_assistant(const std::filesystem::path& dir, const ModelConfig& config);

// generation_config.json; absent keys keep the neutral defaults.
struct GenerationConfig {
  bool present = false;
  std::vector<int32_t> eos_token_ids;
  std::vector<int32_t> suppress_tokens;
  bool do_sample = false;
  double temperature = 1.0;
  int64_t top_k = 0;  // 0: off
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
};

// A missing file is allowed (present = false). Ids are checked against vocab_size.
base::Result<GenerationConfig> read_generation_config(const std::filesystem::path& dir,
                                                      int64_t vocab_size);

// Whether `assistant` can draft for `target`: backbone_hidden_size, vocabulary, window, and a
// target layer of the same type, heads and head_dim for each assistant layer. Names both numbers.
base::Status check_pair(const ModelConfig& target, const ModelConfig& assistant);

// For each assistant layer the target layer whose KV it reads: the last target layer of the same
// type (spec: vLLM, transformers). Call after check_pair.
std::vector<int64_t> shared_kv_layers(const ModelConfig& target, const ModelConfig& assistant);

}  // namespace tandem::io
