#include "cli/prompt_encoder.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/files.h"
#include "cli/sampling_flags.h"
#include "text/message.h"

namespace tandem::cli {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

base::Result<text::ChatTemplate> load_template(const std::filesystem::path& model_dir,
                                               const std::string& file) {
  if (file.empty()) return text::ChatTemplate::load_for_model(model_dir);
  TANDEM_ASSIGN_OR_RETURN(const std::string source, read_text_file(file, kMaxTemplateBytes));
  return text::ChatTemplate::parse(source, file);
}

// Nothing of a prompts file has been checked yet.
bool begins_with_system(const ordered_json& messages) {
  if (messages.empty() || !messages[0].is_object()) return false;
  const auto role = messages[0].find("role");
  return role != messages[0].end() && *role == "system";
}

}  // namespace

base::Status check_kwargs_flag(const std::string& flag, const std::string& text) {
  if (text.empty()) return {};
  TANDEM_RETURN_IF_ERROR(check_json_object(flag, text));
  return text::check_template_kwargs(ordered_json::parse(text), flag);
}

void add_prompt_flags(CLI::App& command, PromptFlags& flags, bool with_raw) {
  command.add_option("--system", flags.system, "text of a system message");
  command.add_option("--chat-template", flags.chat_template,
                     "Jinja file instead of the model folder's");
  command.add_option("--chat-template-kwargs", flags.chat_template_kwargs,
                     R"(JSON for the template: {"enable_thinking": true})");
  command.add_flag("--allow-special", flags.allow_special,
                   "special tokens spelled in the text become their ids");
  if (!with_raw) return;
  command.add_flag("--raw", flags.raw, "prompts as they are, without the chat template");
  command.add_flag("--no-bos", flags.no_bos, "with --raw: no <bos> in front of the prompt");
}

base::Result<PromptEncoder> PromptEncoder::open(const std::filesystem::path& model_dir,
                                                const io::ModelConfig& config, PromptFlags flags,
                                                bool needs_tokenizer) {
  PromptEncoder encoder;
  encoder.flags_ = std::move(flags);
  encoder.modality_ids_ = config.modality_token_ids;
  TANDEM_RETURN_IF_ERROR(
      check_kwargs_flag("--chat-template-kwargs", encoder.flags_.chat_template_kwargs));
  std::error_code ignored;
  if (!needs_tokenizer && !std::filesystem::exists(model_dir / "tokenizer.json", ignored))
    return encoder;
  TANDEM_ASSIGN_OR_RETURN(encoder.tokenizer_, text::Tokenizer::load_for_model(model_dir));
  if (encoder.tokenizer_->vocab_size() > config.text.vocab_size)
    return base::invalid(
        "{}: tokenizer.json: expected at most {} tokens (vocab_size of config.json), got {}; it "
        "belongs to another model",
        model_dir.string(), config.text.vocab_size, encoder.tokenizer_->vocab_size());
  if (needs_tokenizer && !encoder.flags_.raw) {
    TANDEM_ASSIGN_OR_RETURN(encoder.template_,
                            load_template(model_dir, encoder.flags_.chat_template));
  }
  return encoder;
}

base::Result<EncodedPrompt> PromptEncoder::encode(const PromptEntry& entry) const {
  base::Result<EncodedPrompt> encoded;
  if (!entry.token_ids.empty()) {
    encoded = EncodedPrompt{{}, entry.token_ids};
  } else if (entry.messages != nullptr && flags_.raw) {
    encoded = base::invalid("expected a prompt with --raw, got messages");
  } else if ((entry.tools != nullptr || entry.kwargs != nullptr) && flags_.raw) {
    encoded = base::invalid("expected a prompt alone with --raw, got fields for the template");
  } else if (entry.messages != nullptr) {
    encoded = encode_chat(*entry.messages, entry.tools.get(), entry.kwargs.get());
  } else if (flags_.raw) {
    encoded = encode_raw(entry.prompt);
  } else {
    const ordered_json messages = {{{"role", "user"}, {"content", entry.prompt}}};
    encoded = encode_chat(messages, entry.tools.get(), entry.kwargs.get());
  }
  if (encoded) {
    const base::Status status = refuse_modality_ids(encoded->ids);
    if (!status) encoded = tl::unexpected<base::Error>(status.error());
  }
  if (!encoded) encoded.error().message = entry.where + ": " + encoded.error().message;
  return encoded;
}

base::Result<EncodedPrompt> PromptEncoder::encode_chat(const ordered_json& messages,
                                                       const ordered_json* tools,
                                                       const ordered_json* kwargs) const {
  ordered_json with_system = messages;
  if (!flags_.system.empty() && messages.is_array() && !begins_with_system(messages)) {
    // Before there is one more: errors count the messages that were given.
    TANDEM_RETURN_IF_ERROR(text::normalize_messages(messages, {}));
    const ordered_json system = {{"role", "system"}, {"content", flags_.system}};
    with_system.insert(with_system.begin(), system);
  }
  ordered_json merged = ordered_json::object();
  if (!flags_.chat_template_kwargs.empty())
    merged = ordered_json::parse(flags_.chat_template_kwargs);
  if (kwargs != nullptr) merged.update(*kwargs);
  text::ChatRequest request;
  request.messages = &with_system;
  request.tools = tools;
  request.template_kwargs = &merged;
  TANDEM_ASSIGN_OR_RETURN(const std::vector<text::TextSegment> segments,
                          template_->render(request));
  EncodedPrompt encoded;
  encoded.text = text::join_segments(segments);
  encoded.ids = flags_.allow_special
                    ? tokenizer_->encode(encoded.text, text::SpecialTokens::kEnabled)
                    : tokenizer_->encode_segments(segments);
  return encoded;
}

// Nobody adds a BOS to raw text by itself, and a model without one answers badly.
base::Result<EncodedPrompt> PromptEncoder::encode_raw(const std::string& prompt) const {
  EncodedPrompt encoded;
  encoded.text = prompt;
  encoded.ids = tokenizer_->encode(prompt, flags_.allow_special ? text::SpecialTokens::kEnabled
                                                                : text::SpecialTokens::kDisabled);
  const std::optional<int32_t> bos = tokenizer_->bos_id();
  const bool has_bos = bos && !encoded.ids.empty() && encoded.ids.front() == *bos;
  if (flags_.no_bos || has_bos || !bos) return encoded;
  base::log_debug("raw prompt: <bos> ({}) is put in front; --no-bos leaves it out", *bos);
  encoded.ids.insert(encoded.ids.begin(), *bos);
  encoded.text.insert(0, tokenizer_->id_to_token(*bos));
  return encoded;
}

base::Status PromptEncoder::refuse_modality_ids(const std::vector<int32_t>& ids) const {
  for (const int32_t id : ids) {
    if (std::ranges::find(modality_ids_, id) == modality_ids_.end()) continue;
    return base::invalid(
        "expected text tokens, got {} {}, a place for an image or sound; Tandem reads text only",
        id, tokenizer_ ? tokenizer_->id_to_token(id) : std::string_view());
  }
  return {};
}

}  // namespace tandem::cli
