// tandem tokenize: text or a chat to the prompt the model would read and its ids, as JSON.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/files.h"
#include "cli/terminal.h"
#include "io/json.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tandem::cli {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxFileBytes = size_t{64} << 20;

struct TokenizeFlags {
  std::string model;
  std::optional<std::string> text;
  std::string chat;
  std::string tools;
  std::string kwargs;
  std::string chat_template;
  bool allow_special = false;
  bool no_generation_prompt = false;
};

struct Tokenized {
  std::string prompt;
  std::vector<int32_t> ids;
};

base::Result<ordered_json> read_json(std::string_view text, const std::string& where) {
  io::JsonLimits limits;
  limits.max_bytes = kMaxFileBytes;
  limits.max_string_bytes = kMaxFileBytes;
  TANDEM_ASSIGN_OR_RETURN([[maybe_unused]] const nlohmann::json checked,
                          io::parse_json(text, where, limits));
  return ordered_json::parse(text);
}

base::Result<ordered_json> read_json_path(const std::string& path) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxFileBytes));
  return read_json(text, path);
}

base::Result<Tokenized> tokenize_chat(const TokenizeFlags& flags,
                                      const text::Tokenizer& tokenizer) {
  base::Result<text::ChatTemplate> chat_template = text::ChatTemplate::load_for_model(flags.model);
  if (!flags.chat_template.empty()) {
    TANDEM_ASSIGN_OR_RETURN(const std::string source,
                            read_text_file(flags.chat_template, kMaxFileBytes));
    chat_template = text::ChatTemplate::parse(source, flags.chat_template);
  }
  if (!chat_template) return tl::unexpected<base::Error>(chat_template.error());
  TANDEM_ASSIGN_OR_RETURN(const ordered_json messages, read_json_path(flags.chat));
  ordered_json tools, kwargs;
  if (!flags.tools.empty()) {
    TANDEM_ASSIGN_OR_RETURN(tools, read_json_path(flags.tools));
  }
  if (!flags.kwargs.empty()) {
    TANDEM_ASSIGN_OR_RETURN(kwargs, read_json(flags.kwargs, "--template-kwargs"));
  }
  text::ChatRequest request;
  request.messages = &messages;
  request.tools = flags.tools.empty() ? nullptr : &tools;
  request.template_kwargs = flags.kwargs.empty() ? nullptr : &kwargs;
  request.add_generation_prompt = !flags.no_generation_prompt;
  auto segments = chat_template->render(request);
  if (!segments) {
    segments.error().message = flags.chat + ": " + segments.error().message;
    return tl::unexpected<base::Error>(segments.error());
  }
  Tokenized result;
  result.prompt = text::join_segments(*segments);
  result.ids = flags.allow_special ? tokenizer.encode(result.prompt, text::SpecialTokens::kEnabled)
                                   : tokenizer.encode_segments(*segments);
  return result;
}

base::Status check_flags(const TokenizeFlags& flags) {
  if (flags.text.has_value() == !flags.chat.empty())
    return base::invalid("tokenize: expected --text TEXT or --chat MESSAGES.json, got {}",
                         flags.text ? "both" : "neither");
  const bool chat_only = !flags.tools.empty() || !flags.kwargs.empty() ||
                         !flags.chat_template.empty() || flags.no_generation_prompt;
  if (flags.text && chat_only)
    return base::invalid(
        "tokenize: expected --tools, --template-kwargs, --chat-template and "
        "--no-generation-prompt together with --chat, got --text");
  return {};
}

base::Status run(const TokenizeFlags& flags) {
  TANDEM_RETURN_IF_ERROR(check_flags(flags));
  TANDEM_ASSIGN_OR_RETURN(const text::Tokenizer tokenizer,
                          text::Tokenizer::load_for_model(flags.model));
  Tokenized result;
  if (flags.text) {
    result.prompt = *flags.text;
    result.ids =
        tokenizer.encode(*flags.text, flags.allow_special ? text::SpecialTokens::kEnabled
                                                          : text::SpecialTokens::kDisabled);
  } else {
    TANDEM_ASSIGN_OR_RETURN(result, tokenize_chat(flags, tokenizer));
  }
  const ordered_json json = {{"prompt", result.prompt}, {"ids", result.ids}};
  Output output(STDOUT_FILENO);
  output.write(json.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  return output.status();
}

}  // namespace

void add_tokenize_command(CLI::App& program, int& exit_code) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command =
      program.add_subcommand("tokenize", "Print the prompt and token ids of a text or a chat");
  command->add_option("model", flags->model, "folder with tokenizer.json")->required();
  command->add_option("--text", flags->text, "text, taken as it is");
  command->add_option("--chat", flags->chat, "JSON list of messages");
  command->add_option("--tools", flags->tools, "JSON list of tools");
  command->add_option("--template-kwargs,--chat-template-kwargs", flags->kwargs,
                      R"(JSON for the template: {"enable_thinking": true})");
  command->add_option("--chat-template", flags->chat_template,
                      "Jinja file instead of the model folder's");
  command->add_flag("--allow-special", flags->allow_special,
                    "special tokens spelled in the text become their ids");
  command->add_flag("--no-generation-prompt", flags->no_generation_prompt,
                    "do not begin the model's turn");
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
