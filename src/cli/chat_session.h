// A conversation in the terminal: reads lines, answers, obeys /commands.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cli/chat_flags.h"
#include "cli/conversation.h"
#include "cli/generation.h"
#include "cli/line_editor.h"
#include "cli/terminal.h"

namespace tandem::cli {

class ChatSession {
 public:
  ChatSession(const ChatFlags& flags, engine::Runtime& runtime, const PromptEncoder& encoder,
              const sampling::SamplingParams& sampling, int num_draft_tokens, bool synthetic);

  // Until /quit, Ctrl-D or the end of the input.
  base::Status run();

 private:
  enum class Next { kGoOn, kQuit };

  void greet();
  Next take_line(const std::string& line);
  Next obey(std::string_view name, const std::string& argument);
  void answer(const std::string& user_text);
  base::Status try_answer();
  void set_system(const std::string& text);
  // Whether there is such a position.
  bool set_switch(const char* name, const std::string& argument, bool& value);
  void save(const std::string& path);
  void show_stats();
  // A line of the program's own, apart from the answers.
  void say(std::string_view text);
  std::string prompt() const;

  const ChatFlags& flags_;
  engine::Runtime& runtime_;
  const PromptEncoder& encoder_;
  sampling::SamplingParams sampling_;
  int num_draft_tokens_;
  bool synthetic_;
  bool colour_;
  bool thinking_;
  bool thinking_set_ = false;  // by /think; else the flags say
  bool show_accepted_;
  Output output_;
  LineEditor editor_;
  Conversation conversation_;
  bool said_how_to_leave_ = false;

  int64_t num_answers_ = 0;
  int64_t num_tokens_ = 0;
  double seconds_ = 0;
  speculation::AcceptanceStats acceptance_;
};

}  // namespace tandem::cli
