#include "base/log.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
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

constexpr std::string_view kNames[] = {"debug", "info", "warning", "error"};

}  // namespace

void set_log_level(LogLevel level) {
  current_level().store(level, std::memory_order_relaxed);
}

LogLevel log_level() {
  return current_level().load(std::memory_order_relaxed);
}

void log_line(LogLevel level, std::string_view message) {
  const std::string line =
      fmt::format("tandem: {}: {}\n", kNames[static_cast<size_t>(level)], message);
  // One write per line, so that lines of several threads never mix; nothing to do if stderr is
  // gone.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace tandem::base
