#include "cli/line_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <cwchar>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/log.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

namespace tandem::cli {
namespace {

constexpr int kHistoryLines = 1000;
constexpr wchar_t kCtrlD = 4;

// One byte of standard input; false at its end and on Ctrl-C.
bool read_byte(char& byte) {
  while (true) {
    if (InterruptGuard::interrupted()) return false;
    const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
    if (count == 1) return true;
    if (count == 0 || errno != EINTR) return false;
  }
}

}  // namespace

struct LineEditor::State {
  bool terminal = false;
  std::string history_file;
  std::string prompt;
  EditLine* editor = nullptr;
  History* history = nullptr;
  HistEvent event{};
  std::optional<char> kept;  // read, and not looked at

  // Whether the file is one that may be written when the program ends. One that is not there yet
  // or empty is; a device might never end.
  bool load_history() {
    std::error_code error;
    if (history_file.empty() || !std::filesystem::exists(history_file, error)) return true;
    if (!std::filesystem::is_regular_file(history_file, error)) return false;
    if (std::filesystem::file_size(history_file, error) == 0) return true;
    return ::history(history, &event, H_LOAD, history_file.c_str()) >= 0;
  }

  static const char* show_prompt(EditLine* editor) {
    void* data = nullptr;
    el_get(editor, EL_CLIENTDATA, &data);
    return static_cast<State*>(data)->prompt.c_str();
  }

  // libedit's own reader retries after a signal and takes NUL for "quote the next character". A
  // Ctrl-D typed while the terminal was in line mode, before there was an editor, arrives as NUL:
  // it is Ctrl-D.
  static int read_character(EditLine* editor, wchar_t* out) {
    void* data = nullptr;
    el_get(editor, EL_CLIENTDATA, &data);
    std::optional<char>& kept = static_cast<State*>(data)->kept;
    std::mbstate_t state{};
    for (size_t length = 0; length < MB_LEN_MAX; ++length) {
      char byte = 0;
      if (kept)
        byte = *std::exchange(kept, std::nullopt);
      else if (!read_byte(byte))
        return InterruptGuard::interrupted() ? -1 : 0;
      if (byte == '\0') {
        *out = kCtrlD;
        return 1;
      }
      const size_t used = std::mbrtowc(out, &byte, 1, &state);
      if (used == static_cast<size_t>(-1)) {
        // What does not go on with a character may begin the next one, or be Enter.
        if (length > 0) kept = byte;
        *out = L'\xfffd';
        return 1;
      }
      if (used != static_cast<size_t>(-2)) return 1;
    }
    return 0;
  }
};

LineEditor::LineEditor(const std::string& history_file) : state_(std::make_unique<State>()) {
  state_->terminal = cli::is_terminal(STDIN_FILENO) && cli::is_terminal(STDOUT_FILENO);
  state_->history_file = history_file;
  if (!state_->terminal) return;
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
  state_->history = history_init();
  history(state_->history, &state_->event, H_SETSIZE, kHistoryLines);
  history(state_->history, &state_->event, H_SETUNIQUE, 1);
  if (!state_->load_history()) {
    base::log_warning(
        "{}: expected a history file, got something else; it is left as it is, and history is kept "
        "for this run only",
        history_file);
    state_->history_file.clear();
  }
  keep_terminal();
  state_->editor = el_init("tandem", stdin, stdout, stderr);
  // What is typed during an answer comes byte by byte: a terminal that collects lines drops what a
  // line has beyond 4095 bytes.
  el_set(state_->editor, EL_SETTY, "-x", "-icanon", nullptr);
  el_set(state_->editor, EL_CLIENTDATA, state_.get());
  // 1 marks the parts of the prompt that take no place: colours.
  el_set(state_->editor, EL_PROMPT_ESC, &State::show_prompt, '\1');
  el_set(state_->editor, EL_EDITOR, "emacs");
  el_set(state_->editor, EL_SIGNAL, 0);
  el_set(state_->editor, EL_HIST, history, state_->history);
  el_set(state_->editor, EL_GETCFN, &State::read_character);
  el_set(state_->editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  // There is nothing to complete; pasted code has tabs.
  el_set(state_->editor, EL_BIND, "^I", "ed-insert", nullptr);
}

LineEditor::~LineEditor() {
  if (state_->editor != nullptr) el_end(state_->editor);
  restore_terminal();
  if (state_->history == nullptr) return;
  if (!state_->history_file.empty() &&
      history(state_->history, &state_->event, H_SAVE, state_->history_file.c_str()) < 0)
    base::log_warning("{}: expected a file that can be written, got: {}", state_->history_file,
                      std::strerror(errno));
  history_end(state_->history);
}

bool LineEditor::is_terminal() const {
  return state_->terminal;
}

LineEditor::Event LineEditor::read(const std::string& prompt, std::string& line) {
  line.clear();
  std::string part;
  std::string shown = prompt;
  while (true) {
    const Event event = read_one(shown, part);
    if (event == Event::kEnd && !line.empty()) return Event::kLine;
    if (event != Event::kLine) return event;
    const bool goes_on = part.ends_with('\\');
    if (goes_on) part.back() = '\n';
    line += part;
    if (!goes_on) break;
    shown = "... ";
  }
  if (state_->terminal && !line.empty())
    history(state_->history, &state_->event, H_ENTER, line.c_str());
  return Event::kLine;
}

LineEditor::Event LineEditor::read_one(const std::string& prompt, std::string& line) {
  line.clear();
  if (state_->terminal) {
    state_->prompt = prompt;
    state_->kept.reset();
    int count = 0;
    const char* text = el_gets(state_->editor, &count);
    if (InterruptGuard::interrupted()) return Event::kInterrupted;
    if (text == nullptr || count <= 0) return Event::kEnd;
    line.assign(text, static_cast<size_t>(count));
    if (line.ends_with('\n')) line.pop_back();
    return Event::kLine;
  }
  char byte = 0;
  bool any = false;
  while (read_byte(byte)) {
    any = true;
    if (byte == '\n') {
      if (line.ends_with('\r')) line.pop_back();
      return Event::kLine;
    }
    line += byte;
  }
  if (InterruptGuard::interrupted()) return Event::kInterrupted;
  return any ? Event::kLine : Event::kEnd;
}

}  // namespace tandem::cli
