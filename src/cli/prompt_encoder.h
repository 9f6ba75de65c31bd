// Prompts and chats to token ids: template, tokenizer, and what they must not smuggle in.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/prompts.h"
#include "io/model_config.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace CLI {
class App;
}

namespace tandem::cli {

struct PromptFlags {
  std::string system;         // text of a system message
  std::string chat_template;  // file; empty: the model folder's
  std::string chat_template_kwargs;
  bool allow_special = false;  // special tokens spelled in the user's text become their ids
  bool raw = false;            // prompts as they are, without the chat template
  bool no_bos = false;         // raw prompts: nothing is put in front
};

// A flag whose value is variables of the chat template: an object, with no name that a request sets
// elsewhere. Empty: none.
base::Status check_kwargs_flag(const std::string& flag, const std::string& text);

// `with_raw`: also the flags that only make sense for single prompts.
void add_prompt_flags(CLI::App& command, PromptFlags& flags, bool with_raw);

struct EncodedPrompt {
  std::string text;  // as the model reads it; empty for token ids
  std::vector<int32_t> ids;
};

class PromptEncoder {
 public:
  // The template is only needed, and only read, when a prompt is not raw.
  static base::Result<PromptEncoder> open(const std::filesystem::path& model_dir,
                                          const io::ModelConfig& config, PromptFlags flags,
                                          bool needs_tokenizer);

  base::Result<EncodedPrompt> encode(const PromptEntry& entry) const;
  // kwargs and tools may be null; kwargs go before those of the flags.
  base::Result<EncodedPrompt> encode_chat(const nlohmann::ordered_json& messages,
                                          const nlohmann::ordered_json* tools,
                                          const nlohmann::ordered_json* kwargs) const;

  // Null when the run needs none and the folder has none.
  const text::Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }

 private:
  base::Result<EncodedPrompt> encode_raw(const std::string& prompt) const;
  base::Status refuse_modality_ids(const std::vector<int32_t>& ids) const;

  PromptFlags flags_;
  std::optional<text::Tokenizer> tokenizer_;
  std::optional<text::ChatTemplate> template_;
  std::vector<int32_t> modality_ids_;
};

}  // namespace tandem::cli
