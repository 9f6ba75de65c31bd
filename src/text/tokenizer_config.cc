// Tokenizer::load_for_model: tokenizer.json together with the names in tokenizer_config.json.
#include <nlohmann/json.hpp>
#include <utility>

#include "io/json.h"
#include "text/tokenizer.h"
#include "text/tokenizer_tables.h"

namespace tandem::text {
namespace {

using base::Status;
using nlohmann::json;

constexpr const char* kFile = "tokenizer_config.json";

// A token is written as its text, or as an object with the text under "content".
const std::string* token_text(const json& value) {
  if (value.is_string()) return &value.get_ref<const std::string&>();
  if (!value.is_object()) return nullptr;
  const auto content = value.find("content");
  const bool found = content != value.end() && content->is_string();
  return found ? &content->get_ref<const std::string&>() : nullptr;
}

Status take_named_token(const json& config, const char* key, const TokenizerTables& tables,
                        std::optional<int32_t>& id) {
  const auto value = config.find(key);
  if (value == config.end() || value->is_null()) return {};
  const std::string* text = token_text(*value);
  if (text == nullptr) {
    return base::invalid("{}: {}: expected a token, got {}", kFile, key, io::describe_json(*value));
  }
  id = tables.tokens.find(*text);
  if (id) return {};
  return base::invalid("{}: {}: expected a token of tokenizer.json, got {}", kFile, key,
                       io::describe_json(*value));
}

// Names a model adds to the special tokens. transformers would give an unknown one a new id beyond
// the embedding; that is refused here.
Status take_extra_specials(const json& config, const char* key, TokenizerTables& tables) {
  const auto list = config.find(key);
  if (list == config.end() || list->is_null()) return {};
  if (!list->is_array() && !list->is_object()) {
    return base::invalid("{}: {}: expected a list of tokens, got {}", kFile, key,
                         io::describe_json(*list));
  }
  for (const json& value : *list) {
    const std::string* text = token_text(value);
    const auto id = text == nullptr ? std::nullopt : tables.tokens.find(*text);
    if (!id || !tables.is_special(*id)) {
      return base::invalid("{}: {}: expected special tokens of tokenizer.json, got {}", kFile, key,
                           io::describe_json(value));
    }
  }
  return {};
}

}  // namespace

base::Result<Tokenizer> Tokenizer::load_for_model(const std::filesystem::path& model_dir) {
  TANDEM_ASSIGN_OR_RETURN(const auto tables, load_tokenizer_tables(model_dir / "tokenizer.json"));
  std::error_code ignored;
  if (!std::filesystem::exists(model_dir / kFile, ignored)) return Tokenizer(tables);
  TANDEM_ASSIGN_OR_RETURN(const json config, io::read_json_file(model_dir / kFile));
  if (!config.is_object())
    return base::invalid("{}: expected an object, got {}", kFile, io::describe_json(config));
  TANDEM_RETURN_IF_ERROR(take_named_token(config, "bos_token", *tables, tables->bos));
  TANDEM_RETURN_IF_ERROR(take_named_token(config, "eos_token", *tables, tables->eos));
  TANDEM_RETURN_IF_ERROR(take_named_token(config, "pad_token", *tables, tables->pad));
  for (const char* key : {"extra_special_tokens", "additional_special_tokens"})
    TANDEM_RETURN_IF_ERROR(take_extra_specials(config, key, *tables));
  return Tokenizer(tables);
}

}  // namespace tandem::text
