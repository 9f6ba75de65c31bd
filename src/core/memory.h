// How much of the machine's memory this process may still take.
#pragma once

#include <cstdint>
#include <filesystem>

namespace tandem::core {

// Bytes: what /proc/meminfo calls available, or the limit of the process's control group (version
// 2) or of one around it where that is less. The largest number where the system does not tell.
// `root`: where to look, for tests.
int64_t available_memory_bytes(const std::filesystem::path& root = "/");

}  // namespace tandem::core
