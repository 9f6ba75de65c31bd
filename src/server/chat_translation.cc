#include "server/chat_translation.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::server {

using nlohmann::json;
using nlohmann::ordered_json;

ApiError renamed(ApiError error, FieldNames names) {
  if (!error.param) return error;
  for (const auto& [chat, own] : names) {
    const std::string rest = error.param->substr(std::min(chat.size(), error.param->size()));
    const bool matches = error.param->starts_with(chat) &&
                         (rest.empty() || rest.front() == '.' || rest.front() == '[');
    if (!matches) continue;
    // A prompt that is too long is called a prompt whatever it was made of.
    constexpr std::string_view kPrompt = "prompt: ";
    if (error.message.starts_with(kPrompt))
      error.message = fmt::format("{}: {}", own, error.message.substr(kPrompt.size()));
    else if (error.message.starts_with(*error.param))
      error.message = std::string(own) + error.message.substr(chat.size());
    error.param = std::string(own) + rest;
    break;
  }
  return error;
}

void copy_fields(Fields& fields, const ordered_json& body, std::span<const std::string_view> names,
                 ordered_json& chat) {
  for (const std::string_view name : names) {
    const std::string key(name);
    if (fields.any(key) != nullptr) chat[key] = body.at(key);
  }
}

std::span<const std::string_view> common_fields() {
  static constexpr std::array<std::string_view, 24> kNames = {"model",
                                                              "stream",
                                                              "temperature",
                                                              "top_p",
                                                              "top_k",
                                                              "min_p",
                                                              "seed",
                                                              "presence_penalty",
                                                              "logit_bias",
                                                              "stop_token_ids",
                                                              "frequency_penalty",
                                                              "repetition_penalty",
                                                              "min_tokens",
                                                              "ignore_eos",
                                                              "allowed_token_ids",
                                                              "chat_template_kwargs",
                                                              "cache_salt",
                                                              "priority",
                                                              "skip_special_tokens",
                                                              "structured_outputs",
                                                              "bad_words",
                                                              "num_speculative_tokens",
                                                              "stream_interval",
                                                              "thinking_token_budget"};
  return kNames;
}

std::string element_path(const std::string& where, size_t index) {
  return fmt::format("{}[{}]", where, index);
}

std::string part_text(Fields& part, std::span<const std::string_view> part_types) {
  const std::string type = part.string("type", 64).value_or("");
  if (part.error()) return {};
  if (std::ranges::find(part_types, type) == part_types.end()) {
    part.fail("type", fmt::format("expected {}, got {}; Tandem reads text only",
                                  fmt::join(part_types, " or "), io::describe_json(type)));
    return {};
  }
  const auto text = part.string("text", kMaxBodyBytes);
  if (!text) part.fail("text", "expected a string, got none");
  part.ignore({"annotations", "logprobs", "citations", "cache_control", "prompt_cache_breakpoint"});
  part.finish();
  return text.value_or("");
}

ordered_json text_content(Fields& fields, const std::string& key,
                          std::span<const std::string_view> part_types) {
  const json* value = fields.any(key);
  if (value == nullptr) return nullptr;
  if (value->is_string()) return *value;
  if (!value->is_array()) {
    fields.fail(key, "expected a string or a list of parts, got " + io::describe_json(*value));
    return nullptr;
  }
  ordered_json parts = ordered_json::array();
  for (size_t i = 0; i < value->size(); ++i) {
    Fields part((*value)[i], element_path(fields.path_of(key), i));
    parts.push_back({{"type", "text"}, {"text", part_text(part, part_types)}});
    if (!fields.take(part)) return nullptr;
  }
  // One part is the text itself: templates join several in their own way.
  if (parts.size() == 1) return parts[0]["text"];
  return parts;
}

}  // namespace tandem::server
