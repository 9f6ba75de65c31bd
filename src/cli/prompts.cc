#include "cli/prompts.h"

#include <nlohmann/json.hpp>

#include "cli/files.h"
#include "io/json.h"

namespace tandem::cli {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr size_t kMaxEntryBytes = size_t{8} << 20;

// parse_json checks the bounds; this keeps the order of keys, which templates print.
base::Result<ordered_json> parse_ordered(std::string_view text, const std::string& where) {
  io::JsonLimits limits;
  limits.max_bytes = kMaxEntryBytes;
  TANDEM_ASSIGN_OR_RETURN([[maybe_unused]] const nlohmann::json checked,
                          io::parse_json(text, where, limits));
  return ordered_json::parse(text);
}

std::shared_ptr<const ordered_json> shared(const ordered_json& json) {
  return std::make_shared<const ordered_json>(json);
}

void take_kwargs(const ordered_json& object, PromptEntry& entry) {
  ordered_json kwargs = ordered_json::object();
  if (object.contains("enable_thinking")) kwargs["enable_thinking"] = object["enable_thinking"];
  if (const auto given = object.find("chat_template_kwargs"); given != object.end())
    for (const auto& [key, value] : given->items()) kwargs[key] = value;
  if (!kwargs.empty()) entry.kwargs = shared(kwargs);
}

base::Result<PromptEntry> read_entry(std::string_view line, const std::string& where) {
  TANDEM_ASSIGN_OR_RETURN(const ordered_json object, parse_ordered(line, where));
  constexpr const char* kExpected =
      R"({}: expected {{"prompt": TEXT}} or {{"messages": [...]}}, got {})";
  if (!object.is_object()) return base::invalid(kExpected, where, io::describe_json(object));
  PromptEntry entry;
  entry.where = where;
  const auto prompt = object.find("prompt");
  const auto messages = object.find("messages");
  if ((prompt == object.end()) == (messages == object.end()))
    return base::invalid(kExpected, where, prompt == object.end() ? "neither" : "both");
  if (messages != object.end()) {
    entry.messages = shared(*messages);
  } else if (prompt->is_string()) {
    entry.prompt = prompt->get<std::string>();
  } else {
    return base::invalid("{}: prompt: expected text, got {}", where, io::describe_json(*prompt));
  }
  const auto kwargs = object.find("chat_template_kwargs");
  if (kwargs != object.end() && !kwargs->is_object())
    return base::invalid("{}: chat_template_kwargs: expected an object, got {}", where,
                         io::describe_json(*kwargs));
  take_kwargs(object, entry);
  if (const auto tools = object.find("tools"); tools != object.end()) entry.tools = shared(*tools);
  if (const auto id = object.find("id"); id != object.end()) entry.id = shared(*id);
  return entry;
}

base::Result<std::vector<int32_t>> read_ids(const nlohmann::json& list, const std::string& where,
                                            int64_t vocab_size) {
  if (list.empty()) return base::invalid("{}: expected at least one token id, got none", where);
  std::vector<int32_t> ids;
  for (const auto& value : list) {
    const int64_t id = value.is_number_integer() ? value.get<int64_t>() : -1;
    if (id < 0 || id >= vocab_size)
      return base::invalid("{}: entry {}: expected a token id in [0, {}), got {}", where,
                           ids.size(), vocab_size, io::describe_json(value));
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

}  // namespace

PromptEntry prompt_entry(std::string prompt) {
  PromptEntry entry;
  entry.where = "--prompt";
  entry.prompt = std::move(prompt);
  return entry;
}

std::string title_of(const PromptEntry& entry) {
  if (entry.messages == nullptr) return entry.prompt;
  const auto& last = entry.messages->back();
  return last.contains("content") && last["content"].is_string()
             ? last["content"].get<std::string>()
             : std::string();
}

base::Result<std::vector<PromptEntry>> read_prompts_file(const std::filesystem::path& path) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxFileBytes));
  const bool is_jsonl = path.extension() == ".jsonl";
  std::vector<PromptEntry> entries;
  size_t number = 0;
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // some editors write one
  for (size_t begin = text.starts_with(kByteOrderMark) ? 3 : 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", path.string(), number);
    if (is_jsonl) {
      TANDEM_ASSIGN_OR_RETURN(PromptEntry entry, read_entry(line, where));
      entries.push_back(std::move(entry));
    } else {
      entries.push_back(prompt_entry(std::string(line)));
      entries.back().where = where;
    }
  }
  if (entries.empty())
    return base::invalid("{}: expected at least one prompt, got none", path.string());
  return entries;
}

base::Result<std::vector<PromptEntry>> read_token_ids_file(const std::filesystem::path& path,
                                                           int64_t vocab_size) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxFileBytes));
  io::JsonLimits limits;
  limits.max_bytes = kMaxFileBytes;
  limits.max_values = 32 << 20;
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json json, io::parse_json(text, path.string(), limits));
  if (!json.is_array() || json.empty())
    return base::invalid("{}: expected a JSON list of token ids such as [2, 105], got {}",
                         path.string(), io::describe_json(json));
  const bool is_nested = json.front().is_array();
  std::vector<PromptEntry> entries;
  for (size_t i = 0; i < (is_nested ? json.size() : 1); ++i) {
    PromptEntry entry;
    entry.where = is_nested ? fmt::format("{}: list {}", path.string(), i) : path.string();
    const nlohmann::json& list = is_nested ? json[i] : json;
    if (!list.is_array())
      return base::invalid("{}: expected a list of token ids, got {}", entry.where,
                           io::describe_json(list));
    TANDEM_ASSIGN_OR_RETURN(entry.token_ids, read_ids(list, entry.where, vocab_size));
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace tandem::cli
