// What the commands need of a terminal: is there one, how wide, and text that goes out at once.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace tandem::cli {

bool is_terminal(int descriptor);
// Columns; 80 when nobody knows.
int terminal_width(int descriptor);
// A terminal that shows colours, and a user who did not set NO_COLOR.
bool shows_colour(int descriptor);

// restore_terminal() gives standard input the modes that it had when keep_terminal() was called, in
// a handler of signals too; without such a call it does nothing.
void keep_terminal();
void restore_terminal();

namespace style {
inline constexpr std::string_view kReset = "\x1b[0m";
inline constexpr std::string_view kDim = "\x1b[2m";
inline constexpr std::string_view kBold = "\x1b[1m";
inline constexpr std::string_view kGreen = "\x1b[32m";
}  // namespace style

// Text from models and files, safe to print: control characters but newline and tab become U+FFFD,
// so that no answer can move the cursor or change the title.
std::string printable(std::string_view text);

// Unbuffered output: what was written is visible. A reader that went away (`| head`) ends the
// program without a word, as the signal would; other failures are kept for status().
class Output {
 public:
  explicit Output(int descriptor) : descriptor_(descriptor) {}

  void write(std::string_view text);
  base::Status status() const;

 private:
  int descriptor_;
  int error_ = 0;
};

}  // namespace tandem::cli
