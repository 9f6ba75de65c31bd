#include "server/json_text.h"

#include <nlohmann/json.hpp>

namespace tandem::server {

std::string json_text(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string sse_event(const nlohmann::ordered_json& value) {
  // The text of a JSON value has no line break: it is one line of the event.
  return "data: " + json_text(value) + "\n\n";
}

}  // namespace tandem::server
