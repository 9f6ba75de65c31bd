// Reads a person's lines: edited on a terminal, as they come from a pipe.
#pragma once

#include <memory>
#include <string>

namespace tandem::cli {

class LineEditor {
 public:
  // history_file empty: history is kept for this run only.
  explicit LineEditor(const std::string& history_file);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  enum class Event {
    kLine,
    kEnd,          // Ctrl-D, or the end of the pipe
    kInterrupted,  // Ctrl-C; what was typed is gone
  };
  // A line that ends in a backslash goes on in the next one. `prompt` is not shown for a pipe.
  Event read(const std::string& prompt, std::string& line);

  bool is_terminal() const;

 private:
  struct State;
  Event read_one(const std::string& prompt, std::string& line);

  std::unique_ptr<State> state_;
};

}  // namespace tandem::cli
