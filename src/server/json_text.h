// JSON values as text that is always valid UTF-8.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tandem::server {

// One line, keys in order; bytes that are no UTF-8 become U+FFFD.
std::string json_text(const nlohmann::ordered_json& value);

// An event of a stream: `data: {...}` and an empty line.
std::string sse_event(const nlohmann::ordered_json& value);

inline constexpr const char* kSseDone = "data: [DONE]\n\n";

}  // namespace tandem::server
