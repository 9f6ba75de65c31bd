#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <string>

namespace tandem::base {
namespace {

LogLevel level_from_environment() {
  const char* value = std::getenv("TANDEM_LOG");
  const std::string_view name = value == nullptr ? "" : value;
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  return LogLevel::kInfo;
}

std::atomic<LogLevel>& current_level() {
  static std::atomic<LogLevel> level{level_from_environment()};
  return level;
}

bool json_from_environment() {
  const char* value = std::getenv("TANDEM_LOG_FORMAT");
  return value != nullptr && std::string_view(value) == "json";
}

// The length of the character that begins here; 0 for bytes that are none. This folder knows no
// other.
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (length == 1) return 1;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return 0;
  unsigned scalar = lead & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return 0;
    scalar = (scalar << 6U) | (byte(i) & 0x3FU);
  }
  const bool overlong = (length == 3 && scalar < 0x800) || (length == 4 && scalar < 0x10000);
  const bool surrogate = scalar >= 0xD800 && scalar <= 0xDFFF;
  return overlong || surrogate || scalar > 0x10FFFF ? 0 : length;
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t length = character_length(text);
    const char c = text.front();
    const auto byte = static_cast<unsigned char>(c);
    if (length == 0)
      out += "\\ufffd";
    else if (c == '"' || c == '\\')
      out += {'\\', c};
    else if (byte < 0x20)
      out += fmt::format("\\u{:04x}", byte);
    else
      out += text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out + "\"";
}

// A line stays one line, and none speaks to the terminal: messages repeat names from files.
std::string one_line(std::string_view message) {
  std::string out;
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out;
}

std::string utc_now() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:03d}Z", text, millis);
}

constexpr std::string_view kNames[] = {"debug", "info", "warning", "error"};

}  // namespace

void set_log_level(LogLevel level) {
  current_level().store(level, std::memory_order_relaxed);
}

LogLevel log_level() {
  return current_level().load(std::memory_order_relaxed);
}

void warn_of_log_variables() {
  const auto check = [](const char* name, std::string_view known) {
    const char* value = std::getenv(name);
    const std::string_view given = value == nullptr ? "" : value;
    if (given.empty() ||
        fmt::format(", {},", known).find(fmt::format(" {},", given)) != std::string::npos)
      return;
    log_warning("{}: expected one of {}, got {}", name, known, given.substr(0, 60));
  };
  check("TANDEM_LOG", "debug, info, warning, error");
  check("TANDEM_LOG_FORMAT", "json, text");
}

void log_line(LogLevel level, std::string_view message) {
  static const bool json = json_from_environment();
  const std::string_view name = kNames[static_cast<size_t>(level)];
  const std::string line = json ? fmt::format(R"({{"time":"{}","level":"{}","message":{}}})"
                                              "\n",
                                              utc_now(), name, json_string(message))
                                : fmt::format("tandem: {}: {}\n", name, one_line(message));
  // One write per line, so that lines of several threads never mix; nothing to do if stderr is
  // gone.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace tandem::base
