// How long work reports, and how it is told to stop.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/status.h"

namespace tandem::quantize {

// Called between pieces of work with the phase ("calibrating") and how far it is; returning false
// ends the work (Ctrl-C). May be empty.
using Progress = std::function<bool(std::string_view phase, int64_t done, int64_t total)>;

inline base::Status report_progress(const Progress& progress, std::string_view phase, int64_t done,
                                    int64_t total) {
  if (!progress || progress(phase, done, total)) return {};
  return base::make_error(base::ErrorCode::kCancelled, "interrupted; nothing was written");
}

}  // namespace tandem::quantize
