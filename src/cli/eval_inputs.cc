#include "cli/eval_inputs.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/files.h"
#include "cli/prompts.h"
#include "io/json.h"
#include "quantize/default_prompts.h"

namespace tandem::cli {
namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 20;

struct Label {
  std::string task;
  std::optional<std::string> answer;
};

// The text of `key`; nothing where it is missing or null. A number would be compared with no
// answer.
base::Result<std::optional<std::string>> text_of(const nlohmann::json& object, const char* key,
                                                 const std::string& where) {
  const auto value = object.find(key);
  if (value == object.end() || value->is_null()) return std::nullopt;
  if (!value->is_string())
    return base::invalid("{}: {}: expected text, got {}; write it in quotes", where, key,
                         io::describe_json(*value));
  return value->get<std::string>();
}

// One for each entry that read_prompts_file makes of the file, which has checked its JSON.
base::Result<std::vector<Label>> read_labels(const std::filesystem::path& path, size_t count) {
  std::vector<Label> labels;
  if (path.extension() != ".jsonl") return std::vector<Label>(count);
  TANDEM_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxFileBytes));
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string where = fmt::format("{}: line {}", path.string(), ++number);
    const std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const auto object = nlohmann::json::parse(line);
    Label label;
    TANDEM_ASSIGN_OR_RETURN(const auto kind, text_of(object, "kind", where));
    label.task = kind.value_or("");
    TANDEM_ASSIGN_OR_RETURN(label.answer, text_of(object, "answer", where));
    labels.push_back(std::move(label));
  }
  if (labels.size() != count)
    return base::invalid(
        "{}: expected a file that stays the same while it is read, got {} prompts "
        "and then {}",
        path.string(), count, labels.size());
  return labels;
}

}  // namespace

base::Result<std::vector<quantize::EvalPrompt>> read_eval_prompts(const std::filesystem::path& path,
                                                                  int64_t limit,
                                                                  const PromptEncoder& encoder) {
  std::vector<PromptEntry> entries;
  if (path.empty()) {
    for (const std::string_view prompt : quantize::default_prompts())
      entries.push_back(prompt_entry(std::string(prompt)));
  } else {
    TANDEM_ASSIGN_OR_RETURN(entries, read_prompts_file(path));
  }
  std::vector<Label> labels(entries.size());
  if (!path.empty()) {
    TANDEM_ASSIGN_OR_RETURN(labels, read_labels(path, entries.size()));
  }
  if (limit > 0 && static_cast<size_t>(limit) < entries.size())
    entries.resize(static_cast<size_t>(limit));
  std::vector<quantize::EvalPrompt> prompts;
  for (size_t i = 0; i < entries.size(); ++i) {
    TANDEM_ASSIGN_OR_RETURN(EncodedPrompt encoded, encoder.encode(entries[i]));
    Label& label = labels[i];
    prompts.push_back({label.task.empty() ? "all" : std::move(label.task), std::move(encoded.ids),
                       std::move(label.answer)});
  }
  return prompts;
}

base::Result<std::vector<quantize::EvalText>> read_eval_text(const std::filesystem::path& path,
                                                             int64_t max_tokens,
                                                             const text::Tokenizer& tokenizer) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxFileBytes));
  const std::vector<int32_t> ids = tokenizer.encode(text, text::SpecialTokens::kDisabled);
  if (ids.empty()) return base::invalid("{}: expected text, got none", path.string());
  std::vector<quantize::EvalText> texts;
  const std::optional<int32_t> bos = tokenizer.bos_id();
  const auto piece = static_cast<size_t>(std::max<int64_t>(1, max_tokens - (bos ? 1 : 0)));
  for (size_t begin = 0; begin < ids.size(); begin += piece) {
    const size_t end = std::min(ids.size(), begin + piece);
    quantize::EvalText part;
    if (bos) part.ids.push_back(*bos);
    part.ids.insert(part.ids.end(), ids.begin() + static_cast<int64_t>(begin),
                    ids.begin() + static_cast<int64_t>(end));
    texts.push_back(std::move(part));
  }
  return texts;
}

}  // namespace tandem::cli
