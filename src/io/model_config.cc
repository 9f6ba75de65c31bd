#include "io/model_config.h"

#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "io/config_json.h"
#include "io/model_config_reader.h"

namespace tandem::io {
namespace {

using nlohmann::json;

struct KnownType {
  std::string_view name;
  ModelKind kind;
  bool text_only;  // the text tower's keys are at the top level
};

constexpr std::array<KnownType, 7> kKnownTypes = {{
    {"gemma4_unified", ModelKind::kTarget, false},
    {"gemma4_unified_text", ModelKind::kTarget, true},
    {"gemma4", ModelKind::kTarget, false},
    {"gemma4_text", ModelKind::kTarget, true},
    {"gemma4_unified_assistant", ModelKind::kAssistant, false},
    {"gemma4_assistant", ModelKind::kAssistant, false},
    {"gemma4-assistant", ModelKind::kAssistant, false},
}};

base::Result<KnownType> known_type(const JsonObject& object, const std::string& name) {
  for (const KnownType& type : kKnownTypes)
    if (type.name == name) return type;
  return base::unsupported(
      "{}: model_type: expected gemma4_unified, gemma4_unified_text, gemma4, gemma4_text "
      "(targets), "
      "gemma4_unified_assistant or gemma4_assistant, got {}",
      object.where(), name.size() <= 100 ? name : name.substr(0, 100) + "...");
}

// Keys of ids that begin, end or stand for an image, audio or video; transformers' defaults where a
// file of the full vocabulary leaves them out. Both spellings of the last two are in use.
struct ModalityKey {
  const char* key;
  const char* other_key;
  int32_t default_id;
};
constexpr std::array<ModalityKey, 7> kModalityKeys = {{
    {"boi_token_id", "boi_token_index", 255999},
    {"boa_token_id", "boa_token_index", 256000},
    {"image_token_id", "image_token_index", 258880},
    {"audio_token_id", "audio_token_index", 258881},
    {"eoi_token_id", "eoi_token_index", 258882},
    {"eoa_token_id", "eoa_token_index", 258883},
    {"video_token_id", "video_token_index", 258884},
}};
constexpr int64_t kFamilyVocab = 262144;

// transformers writes its defaults even for a tiny vocabulary: an id past it cannot occur.
base::Status read_modality_ids(const JsonObject& object, ModelConfig& config) {
  for (const ModalityKey& modality : kModalityKeys) {
    const char* key = object.has(modality.key) ? modality.key : modality.other_key;
    int64_t id = config.text.vocab_size == kFamilyVocab ? modality.default_id
                                                        : std::numeric_limits<int32_t>::max();
    if (object.has(key)) {
      TANDEM_ASSIGN_OR_RETURN(id, object.integer(key, 0, std::numeric_limits<int32_t>::max()));
      if (id < config.text.vocab_size)
        config.special_token_ids.push_back({modality.key, static_cast<int32_t>(id)});
    }
    if (id < config.text.vocab_size) config.modality_token_ids.push_back(static_cast<int32_t>(id));
  }
  return {};
}

base::Status read_special_ids(const JsonObject& object, const JsonObject& text,
                              ModelConfig& config) {
  const int64_t vocab = config.text.vocab_size;
  TANDEM_ASSIGN_OR_RETURN(const auto text_eos, text.ids_or_empty("eos_token_id", vocab));
  TANDEM_ASSIGN_OR_RETURN(config.eos_token_ids, object.ids_or_empty("eos_token_id", vocab));
  if (config.eos_token_ids.empty()) config.eos_token_ids = text_eos;
  for (const char* key : {"bos_token_id", "pad_token_id"}) {
    if (!text.has(key)) continue;
    TANDEM_ASSIGN_OR_RETURN(const int64_t id, text.integer(key, -1, vocab - 1));
    if (id >= 0) config.special_token_ids.push_back({key, static_cast<int32_t>(id)});
  }
  return read_modality_ids(object, config);
}

base::Status read_assistant_keys(const JsonObject& object, ModelConfig& config) {
  TANDEM_ASSIGN_OR_RETURN(config.backbone_hidden_size,
                          object.integer("backbone_hidden_size", 1, int64_t{1} << 24));
  TANDEM_ASSIGN_OR_RETURN(const bool ordered, object.boolean_or("use_ordered_embeddings", false));
  if (ordered)
    return base::unsupported(
        "{}: use_ordered_embeddings: expected false, got true: assistants with clustered output "
        "embeddings (E2B, E4B) are not supported yet",
        object.where());
  return {};
}

}  // namespace

base::Result<ModelConfig> read_model_config(const std::filesystem::path& dir,
                                            std::string_view hf_overrides) {
  TANDEM_ASSIGN_OR_RETURN(const json root, read_config_json(dir, hf_overrides));
  TANDEM_ASSIGN_OR_RETURN(const JsonObject object,
                          JsonObject::of(root, (dir / "config.json").string()));
  ModelConfig config;
  TANDEM_ASSIGN_OR_RETURN(config.model_type, object.string("model_type"));
  TANDEM_ASSIGN_OR_RETURN(const KnownType type, known_type(object, config.model_type));
  config.kind = type.kind;
  if (object.has("auto_map"))
    base::log_warning("{}: auto_map is ignored: no code of a model folder is ever run",
                      object.where());

  auto nested = type.text_only ? base::Result<JsonObject>(object) : object.object("text_config");
  TANDEM_ASSIGN_OR_RETURN(const JsonObject text, std::move(nested));
  TANDEM_ASSIGN_OR_RETURN(config.text, read_text_config(text, type.kind));
  // The top level's word counts where both are given: it is what transformers ties by.
  TANDEM_ASSIGN_OR_RETURN(
      config.text.tie_word_embeddings,
      object.boolean_or("tie_word_embeddings", config.text.tie_word_embeddings));
  if (type.kind == ModelKind::kAssistant)
    TANDEM_RETURN_IF_ERROR(read_assistant_keys(object, config));
  TANDEM_RETURN_IF_ERROR(read_special_ids(object, text, config));
  return config;
}

}  // namespace tandem::io
