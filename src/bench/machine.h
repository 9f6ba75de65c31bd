// What a measurement was made on, for its report.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tandem::bench {

std::string cpu_model();
// Seconds since 1970 as "2026-11-28T07:00:00Z".
std::string utc_now();

// {"cpu", "cores", "memory_bytes", "load_average"}: the load other work puts on the machine is part
// of what a time means.
nlohmann::ordered_json machine_json();

// The most memory this process has had resident so far.
int64_t peak_rss_bytes();

}  // namespace tandem::bench
