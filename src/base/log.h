// Log lines on stderr: `tandem: level: message`. No dependency of headers on the log library.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace tandem::base {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Lines below the level are dropped. Default kInfo; the environment variable TANDEM_LOG
// (debug, info, warning, error) sets it at start.
void set_log_level(LogLevel level);
LogLevel log_level();
// A line for each of TANDEM_LOG and TANDEM_LOG_FORMAT that says what nobody knows, and so does
// nothing.
void warn_of_log_variables();

// Thread-safe; one write per line.
void log_line(LogLevel level, std::string_view message);

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kDebug)
    log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kInfo)
    log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kWarning)
    log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace tandem::base
