#include "bench/stream_reader.h"

#include <nlohmann/json.hpp>

namespace tandem::bench {
namespace {

using nlohmann::json;

// False when there is none.
bool add_text(const json& holder, const char* key, StreamEvent& event) {
  const auto found = holder.find(key);
  if (found == holder.end() || !found->is_string()) return false;
  const auto& text = found->get_ref<const std::string&>();
  event.text += text;
  event.has_content = event.has_content || !text.empty();
  return !text.empty();
}

void read_choice(const json& choice, StreamEvent& event) {
  add_text(choice, "text", event);
  const auto delta = choice.find("delta");
  if (delta != choice.end() && delta->is_object()) {
    // llama.cpp, SGLang and older vLLM have the second name; some servers send both.
    if (!add_text(*delta, "reasoning", event)) add_text(*delta, "reasoning_content", event);
    add_text(*delta, "content", event);
    const auto calls = delta->find("tool_calls");
    event.has_content = event.has_content || (calls != delta->end() && !calls->empty());
  }
  const auto ids = choice.find("token_ids");
  if (ids != choice.end() && ids->is_array())
    for (const json& id : *ids)
      if (id.is_number_integer()) event.token_ids.push_back(id.get<int32_t>());
  const auto reason = choice.find("finish_reason");
  event.has_content = event.has_content || !event.token_ids.empty() ||
                      (reason != choice.end() && !reason->is_null());
}

std::optional<int64_t> count_of(const json& usage, const char* key) {
  const auto found = usage.find(key);
  if (found == usage.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

}  // namespace

StreamEvent read_event(std::string_view data) {
  StreamEvent event;
  if (data == "[DONE]") {
    event.done = true;
    return event;
  }
  const json parsed = json::parse(data, nullptr, false);
  if (!parsed.is_object()) {
    event.error = "an event that is no JSON object: " + std::string(data.substr(0, 100));
    return event;
  }
  const auto error = parsed.find("error");
  if (error != parsed.end() && !error->is_null()) {
    event.error = error_message(data);
    return event;
  }
  const auto choices = parsed.find("choices");
  if (choices != parsed.end() && choices->is_array())
    for (const json& choice : *choices)
      if (choice.is_object()) read_choice(choice, event);
  const auto usage = parsed.find("usage");
  if (usage != parsed.end() && usage->is_object()) {
    event.num_prompt_tokens = count_of(*usage, "prompt_tokens");
    event.num_output_tokens = count_of(*usage, "completion_tokens");
  }
  return event;
}

std::string error_message(std::string_view body) {
  const json parsed = json::parse(body, nullptr, false);
  const json::json_pointer path("/error/message");
  if (parsed.is_object() && parsed.contains(path) && parsed[path].is_string())
    return parsed[path].get<std::string>();
  return std::string(body.substr(0, 200));
}

}  // namespace tandem::bench
