// How much of the machine's memory this process may still take.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/status.h"

namespace tandem::core {

// Bytes: what /proc/meminfo calls available, or the limit of the process's control group (version
// 2) or of one around it where that is less. The largest number where the system does not tell.
// `root`: where to look, for tests.
int64_t available_memory_bytes(const std::filesystem::path& root = "/");

// Refuses what needs more than is available: a system that promises memory it does not have ends
// the process when it is written. `bytes` is a double, as configs may ask for more than an integer
// holds.
base::Status check_memory(double bytes, std::string_view what, std::string_view advice);

}  // namespace tandem::core
