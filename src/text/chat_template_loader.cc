// ChatTemplate::load_for_model: where a model folder keeps its template and special tokens.
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "text/chat_template_state.h"
#include "text/jinja/limits.h"

namespace tandem::text {
namespace {

using base::ErrorCode;
using base::Result;
using base::Status;
using nlohmann::json;

constexpr const char* kTemplateFile = "chat_template.jinja";
constexpr const char* kConfigFile = "tokenizer_config.json";

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

Result<std::string> read_template(const std::filesystem::path& path) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(path, failed)) {
    return base::invalid("{}: expected a file, got something else", path.string());
  }
  const auto size = std::filesystem::file_size(path, failed);
  if (failed || size > jinja::kMaxSourceBytes) {
    return base::invalid("{}: expected at most {} bytes, got {}", path.string(),
                         jinja::kMaxSourceBytes, size);
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(size, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size))) {
    return base::invalid("{}: expected {} bytes, got a read error", path.string(), size);
  }
  return text;
}

// A token is written as its text, or as an object with the text under "content".
const std::string* token_text(const json& value) {
  if (value.is_string()) return &value.get_ref<const std::string&>();
  if (!value.is_object()) return nullptr;
  const auto content = value.find("content");
  const bool found = content != value.end() && content->is_string();
  return found ? &content->get_ref<const std::string&>() : nullptr;
}

void take_special_tokens(const json& object,
                         std::vector<std::pair<std::string, std::string>>& tokens) {
  for (const auto& [key, value] : object.items()) {
    const std::string* text = key.ends_with("_token") ? token_text(value) : nullptr;
    if (text != nullptr) tokens.emplace_back(key, *text);
  }
}

// `chat_template` of tokenizer_config.json as a list of {name, template}.
Status take_named_templates(const json& list, ChatTemplateState& state, bool& has_main) {
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("{}: chat_template[{}]", kConfigFile, i);
    const json& entry = list[i];
    const bool complete = entry.is_object() && entry.contains("name") &&
                          entry["name"].is_string() && entry.contains("template") &&
                          entry["template"].is_string();
    if (!complete) return base::invalid("{}: expected a name and a template", where);
    const bool is_main = entry["name"] == "default";
    if (!is_main && entry["name"] != "tool_use") continue;
    TANDEM_ASSIGN_OR_RETURN(
        NamedTemplate compiled,
        compile_template(entry["template"].get_ref<const std::string&>(), where));
    if (is_main) {
      state.main = std::move(compiled);
      has_main = true;
    } else {
      state.tool_use = std::move(compiled);
    }
  }
  if (has_main) return {};
  return base::invalid("{}: chat_template: expected one named \"default\", got none", kConfigFile);
}

Status take_config_template(const json& config, ChatTemplateState& state, bool& has_main) {
  const auto entry = config.find("chat_template");
  if (entry == config.end() || entry->is_null()) return {};
  if (entry->is_array()) return take_named_templates(*entry, state, has_main);
  if (!entry->is_string()) {
    return base::invalid("{}: chat_template: expected a text or a list, got {}", kConfigFile,
                         io::describe_json(*entry));
  }
  TANDEM_ASSIGN_OR_RETURN(state.main,
                          compile_template(entry->get_ref<const std::string&>(),
                                           fmt::format("{}: chat_template", kConfigFile)));
  has_main = true;
  return {};
}

}  // namespace

Result<ChatTemplate> ChatTemplate::load_for_model(const std::filesystem::path& model_dir) {
  auto state = std::make_shared<ChatTemplateState>();
  json config = json::object();
  const auto config_path = model_dir / kConfigFile;
  if (is_there(config_path)) {
    TANDEM_ASSIGN_OR_RETURN(config, io::read_json_file(config_path));
    if (!config.is_object()) {
      return base::invalid("{}: expected an object, got {}", config_path.string(),
                           io::describe_json(config));
    }
    take_special_tokens(config, state->special_tokens);
    const auto extra = config.find("extra_special_tokens");
    if (extra != config.end() && extra->is_object()) {
      take_special_tokens(*extra, state->special_tokens);
    }
  } else {
    state->special_tokens = {{"bos_token", "<bos>"},
                             {"eos_token", "<eos>"},
                             {"pad_token", "<pad>"},
                             {"unk_token", "<unk>"}};
  }

  bool has_main = false;
  const auto template_path = model_dir / kTemplateFile;
  if (is_there(template_path)) {
    TANDEM_ASSIGN_OR_RETURN(const std::string source, read_template(template_path));
    TANDEM_ASSIGN_OR_RETURN(state->main, compile_template(source, kTemplateFile));
    has_main = true;
  } else {
    TANDEM_RETURN_IF_ERROR(take_config_template(config, *state, has_main));
  }
  if (!has_main) {
    return base::make_error(
        ErrorCode::kNotFound,
        fmt::format("{}: expected {} or a chat_template in {}, got neither; copy one from the "
                    "instruction-tuned model of this family",
                    model_dir.string(), kTemplateFile, kConfigFile));
  }
  return ChatTemplate(std::move(state));
}

}  // namespace tandem::text
