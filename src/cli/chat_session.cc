#include "cli/chat_session.h"

#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/answer_printer.h"
#include "cli/generate_report.h"
#include "cli/interrupt.h"
#include "cli/usage_error.h"
#include "io/atomic_file.h"

namespace tandem::cli {
namespace {

struct Command {
  const char* name;
  const char* argument;
  const char* help;
};
constexpr std::array<Command, 9> kCommands = {{
    {"/help", "", "this list"},
    {"/reset", "", "forget the conversation (the system message stays)"},
    {"/undo", "", "take back your last message and its answer"},
    {"/retry", "", "answer the last message again"},
    {"/system", " TEXT", "set the system message and start over; without TEXT: none"},
    {"/think", " on|off", "let the model think before it answers"},
    {"/accepted", " on|off", "accepted drafts in green"},
    {"/save", " FILE", "write the conversation as JSON"},
    {"/stats", "", "tokens, speed and acceptance so far"},
}};

std::string trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

std::vector<std::string> command_names() {
  std::vector<std::string> names = {"/quit"};
  for (const Command& command : kCommands) names.emplace_back(command.name);
  return names;
}

}  // namespace

ChatSession::ChatSession(const ChatFlags& flags, engine::Runtime& runtime,
                         const PromptEncoder& encoder, const sampling::SamplingParams& sampling,
                         int num_draft_tokens, bool synthetic)
    : flags_(flags),
      runtime_(runtime),
      encoder_(encoder),
      sampling_(sampling),
      num_draft_tokens_(num_draft_tokens),
      synthetic_(synthetic),
      colour_(shows_colour(STDOUT_FILENO)),
      thinking_(text::thinking_is_on(
          nlohmann::ordered_json::parse(flags.prompt.chat_template_kwargs, nullptr, false))),
      show_accepted_(flags.show_accepted),
      output_(STDOUT_FILENO),
      editor_(flags.history_file),
      conversation_(flags.prompt.system) {}

base::Status ChatSession::run() {
  if (editor_.is_terminal()) greet();
  while (output_.status()) {
    InterruptGuard::clear();
    if (InterruptGuard::terminated())
      return base::make_error(base::ErrorCode::kCancelled, "terminated");
    std::string line;
    switch (editor_.read(prompt(), line)) {
      case LineEditor::Event::kEnd:
        if (editor_.is_terminal()) output_.write("\n");
        return output_.status();
      case LineEditor::Event::kInterrupted:
        if (!editor_.is_terminal())
          return base::make_error(base::ErrorCode::kCancelled, "interrupted");
        output_.write("\n");
        if (InterruptGuard::terminated()) break;
        if (!said_how_to_leave_) say("Ctrl-D or /quit leaves; Ctrl-C stops an answer");
        said_how_to_leave_ = true;
        break;
      case LineEditor::Event::kLine:
        if (take_line(line) == Next::kQuit) return output_.status();
        break;
    }
  }
  return output_.status();
}

void ChatSession::greet() {
  say(fmt::format("{}{}; /help lists the commands, Ctrl-D leaves", flags_.model.target,
                  num_draft_tokens_ > 0 ? fmt::format(", {} drafts a round", num_draft_tokens_)
                                        : std::string(", no drafts")));
}

std::string ChatSession::prompt() const {
  return colour_ ? "\1\x1b[1m\1> \1\x1b[0m\1" : "> ";
}

void ChatSession::say(std::string_view text) {
  const std::string safe = printable(text);
  output_.write(colour_ ? fmt::format("{}{}{}\n", style::kDim, safe, style::kReset) : safe + "\n");
}

ChatSession::Next ChatSession::take_line(const std::string& line) {
  const std::string text = trim(line);
  if (text.empty()) return Next::kGoOn;
  if (text[0] != '/') {
    answer(text);
    return Next::kGoOn;
  }
  const size_t end = std::min(text.find_first_of(" \t\n"), text.size());
  return obey(std::string_view(text).substr(0, end), trim(std::string_view(text).substr(end)));
}

ChatSession::Next ChatSession::obey(std::string_view name, const std::string& argument) {
  if (name == "/quit" || name == "/exit" || name == "/bye") return Next::kQuit;
  if (name == "/help") {
    for (const Command& command : kCommands)
      say(fmt::format("{:<16} {}", std::string(command.name) + command.argument, command.help));
    say(fmt::format("{:<16} {}", "/quit", "leave; a line that ends in \\ goes on in the next"));
  } else if (name == "/reset") {
    conversation_.reset();
    say("the conversation is empty");
  } else if (name == "/undo") {
    say(conversation_.undo().empty() ? "there is nothing to take back" : "taken back");
  } else if (name == "/retry") {
    const std::string text = conversation_.undo();
    if (text.empty())
      say("there is nothing to answer");
    else
      answer(text);
  } else if (name == "/system") {
    set_system(argument);
  } else if (name == "/think") {
    if (set_switch("/think", argument, thinking_)) thinking_set_ = true;
  } else if (name == "/accepted") {
    set_switch("/accepted", argument, show_accepted_);
  } else if (name == "/save") {
    save(argument);
  } else if (name == "/stats") {
    show_stats();
  } else {
    const std::string near = nearest(name, command_names());
    say(fmt::format("expected a command, got {}{}; /help lists them", name,
                    near.empty() ? std::string() : fmt::format("; did you mean {}?", near)));
  }
  return Next::kGoOn;
}

void ChatSession::answer(const std::string& user_text) {
  conversation_.add_user(user_text);
  const base::Status status = try_answer();
  if (status) return;
  conversation_.undo();
  say(fmt::format("error: {}; /reset starts over", status.error().message));
}

base::Status ChatSession::try_answer() {
  nlohmann::ordered_json kwargs = nlohmann::ordered_json::object();
  if (thinking_set_) kwargs["enable_thinking"] = thinking_;
  TANDEM_ASSIGN_OR_RETURN(EncodedPrompt encoded,
                          encoder_.encode_chat(conversation_.messages(), nullptr, &kwargs));
  const int64_t room =
      runtime_.engine().max_request_tokens() - static_cast<int64_t>(encoded.ids.size());
  if (room < 1)
    return base::invalid("expected a conversation of fewer than {} tokens, got {}",
                         runtime_.engine().max_request_tokens(), encoded.ids.size());
  std::vector<GenerationRequest> requests;
  requests.push_back({.where = "chat",
                      .prompt_ids = std::move(encoded.ids),
                      .sampling = sampling_,
                      .max_tokens = std::min(flags_.sampling.max_tokens, room),
                      .stop = flags_.sampling.stop,
                      .include_stop_str_in_output = flags_.sampling.include_stop_str_in_output});
  AnswerPrinter printer(output_, is_terminal(STDOUT_FILENO), colour_, show_accepted_);
  TANDEM_ASSIGN_OR_RETURN(
      const std::vector<GenerationState> states,
      generate(runtime_, encoder_.tokenizer(), std::move(requests),
               {.on_text = [&](size_t, const GenerationState&, std::span<const AnswerText> texts) {
                 printer.write(texts);
               }}));
  printer.end();
  const GenerationState& state = states[0];
  conversation_.add_assistant(state.answer.content());
  ++num_answers_;
  num_tokens_ += static_cast<int64_t>(state.answer.token_ids().size());
  seconds_ += state.finish->stats.total_seconds;
  acceptance_.add(state.finish->stats.acceptance);
  if (state.finish->reason == engine::FinishReason::kCancelled) say("(stopped)");
  if (state.finish->reason == engine::FinishReason::kLength)
    say("(cut off at --max-tokens or at the longest conversation)");
  if (state.finish->reason == engine::FinishReason::kError)
    return base::make_error(base::ErrorCode::kInternal, state.finish->error);
  return {};
}

void ChatSession::set_system(const std::string& text) {
  conversation_.reset();
  conversation_.set_system(text);
  say(text.empty() ? "no system message; the conversation is empty"
                   : "system message set; the conversation is empty");
}

bool ChatSession::set_switch(const char* name, const std::string& argument, bool& value) {
  if (!argument.empty() && argument != "on" && argument != "off") {
    say(fmt::format("{}: expected on or off, got {}", name, argument));
    return false;
  }
  value = argument.empty() ? !value : argument == "on";
  say(fmt::format("{} {}", name, value ? "on" : "off"));
  return true;
}

void ChatSession::save(const std::string& path) {
  if (path.empty()) return say("/save: expected a file name, got none");
  const std::string text = conversation_.messages().dump(
                               2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                           "\n";
  const base::Status status = io::write_file_atomically(path, text);
  say(status ? fmt::format("{} messages written to {}", conversation_.messages().size(), path)
             : fmt::format("error: {}", status.error().message));
}

void ChatSession::show_stats() {
  say(fmt::format("{} answer{}; {}", num_answers_, num_answers_ == 1 ? "" : "s",
                  describe_run(num_tokens_, seconds_, acceptance_, num_draft_tokens_, synthetic_)));
}

}  // namespace tandem::cli
