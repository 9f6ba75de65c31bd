#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

namespace tandem::cli {
namespace {

constexpr int kExitClosedPipe = 141;  // 128 + SIGPIPE, what a shell shows for the signal

termios g_modes;
volatile std::sig_atomic_t g_has_modes = 0;

}  // namespace

bool is_terminal(int descriptor) {
  return ::isatty(descriptor) == 1;
}

int terminal_width(int descriptor) {
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

bool shows_colour(int descriptor) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  if (no_color != nullptr && *no_color != '\0') return false;
  return is_terminal(descriptor) && term != nullptr && std::string_view(term) != "dumb";
}

void keep_terminal() {
  g_has_modes = ::tcgetattr(STDIN_FILENO, &g_modes) == 0 ? 1 : 0;
}

void restore_terminal() {
  if (g_has_modes != 0) ::tcsetattr(STDIN_FILENO, TCSANOW, &g_modes);
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // C1 controls are two bytes in UTF-8: C2 80 .. C2 9F.
    const bool c1 = byte == 0xc2 && i + 1 < text.size() &&
                    static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
                    static_cast<unsigned char>(text[i + 1]) <= 0x9f;
    const bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    if (c1) ++i;
    if (c1 || control)
      out += "\xEF\xBF\xBD";
    else
      out += text[i];
  }
  return out;
}

void Output::write(std::string_view text) {
  while (!text.empty() && error_ == 0) {
    const ssize_t written = ::write(descriptor_, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EPIPE) {
      std::_Exit(kExitClosedPipe);
    } else if (errno != EINTR && errno != EAGAIN) {
      error_ = errno;
    }
  }
}

base::Status Output::status() const {
  if (error_ == 0) return {};
  return base::make_error(
      base::ErrorCode::kResourceExhausted,
      fmt::format("output: expected to write all of it, got: {}", std::strerror(error_)));
}

}  // namespace tandem::cli
