// Writes an answer to a terminal or a pipe as it is made.
#pragma once

#include <span>
#include <string>

#include "cli/answer.h"
#include "cli/terminal.h"

namespace tandem::cli {

class AnswerPrinter {
 public:
  // On a terminal thoughts are dim, without the channel's name, and control characters are made
  // harmless; accepted drafts are green on request. A pipe gets the text as it is.
  AnswerPrinter(Output& output, bool terminal, bool colour, bool show_accepted)
      : output_(output), terminal_(terminal), colour_(colour), show_accepted_(show_accepted) {}

  void write(std::span<const AnswerText> texts);
  // Ends the answer's last line.
  void end();

 private:
  std::string without_channel_name(std::string text);

  Output& output_;
  bool terminal_;
  bool colour_;
  bool show_accepted_;
  bool was_thinking_ = false;
  size_t name_matched_ = 0;  // characters of "thought\n" that have been left out
  char last_ = '\n';
};

}  // namespace tandem::cli
