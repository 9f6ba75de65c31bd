// Where prompts come from: a flag, a file of prompts, a file of token ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem::cli {

// One request as the user wrote it: messages, or ids, or else a prompt.
struct PromptEntry {
  std::string where;                                       // for messages: "FILE: line 3"
  std::string prompt;                                      // plain text
  std::shared_ptr<const nlohmann::ordered_json> messages;  // null: `prompt` or `token_ids`
  std::shared_ptr<const nlohmann::ordered_json> tools;     // may be null
  std::shared_ptr<const nlohmann::ordered_json> kwargs;    // of the template; may be null
  std::shared_ptr<const nlohmann::ordered_json> id;        // the entry's own; may be null
  std::vector<int32_t> token_ids;
};

PromptEntry prompt_entry(std::string prompt);
// What a person would call the request: its last words.
std::string title_of(const PromptEntry& entry);

// FILE.jsonl: objects with "prompt" or "messages", and maybe "tools", "chat_template_kwargs",
// "enable_thinking" and "id"; other keys are passed over. Any other file: one prompt per line.
base::Result<std::vector<PromptEntry>> read_prompts_file(const std::filesystem::path& path);

// A JSON list of token ids, or a list of such lists.
base::Result<std::vector<PromptEntry>> read_token_ids_file(const std::filesystem::path& path,
                                                           int64_t vocab_size);

}  // namespace tandem::cli
