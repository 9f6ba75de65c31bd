#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/log.h"
#include "cli/terminal.h"

namespace tandem::cli {
namespace {

constexpr double kQuietSeconds = 1.0;
constexpr double kSecondsPerFrame = 0.1;
constexpr double kSecondsPerLine = 10.0;
constexpr int kBarCells = 24;

}  // namespace

std::string describe_seconds(double seconds) {
  const auto whole = static_cast<int64_t>(std::max(0.0, seconds) + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

std::string describe_bytes(double bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (bytes >= 999.95 && unit + 1 < kUnits.size()) {
    bytes /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

Progress::Progress(std::string label)
    : label_(std::move(label)),
      terminal_(is_terminal(STDERR_FILENO)),
      next_seconds_(kQuietSeconds) {}

Progress::~Progress() {
  if (drawn_ && terminal_) Output(STDERR_FILENO).write("\r\x1b[K");
}

void Progress::update(int64_t done, int64_t total, std::string_view note) {
  const double now = age_.seconds();
  if (now < next_seconds_) return;
  next_seconds_ = now + (terminal_ ? kSecondsPerFrame : kSecondsPerLine);
  const double share =
      total <= 0 ? 0.0
                 : std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
  draw(share, share > 0 ? now * (1 - share) / share : -1.0, note);
  drawn_ = true;
}

void Progress::draw(double share, double seconds_left, std::string_view note) const {
  std::string behind = fmt::format("{:3.0f} %", 100 * share);
  if (seconds_left >= 0) behind += fmt::format(", {} left", describe_seconds(seconds_left));
  if (!note.empty()) behind += fmt::format("; {}", note);
  if (!terminal_) {
    base::log_info("{}: {}", label_, behind);
    return;
  }
  const auto filled = static_cast<size_t>(share * kBarCells + 0.5);
  std::string line = fmt::format("{} [{}{}] {}", label_, std::string(filled, '#'),
                                 std::string(kBarCells - filled, '.'), behind);
  const auto width = static_cast<size_t>(std::max(1, terminal_width(STDERR_FILENO) - 1));
  if (line.size() > width) line.resize(width);
  Output(STDERR_FILENO).write("\r" + line + "\x1b[K");
}

}  // namespace tandem::cli
