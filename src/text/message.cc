#include "text/message.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "io/json.h"

namespace tandem::text {
namespace {

using base::Result;
using base::Status;
using nlohmann::ordered_json;

// The kind of a value, never its text: errors must not repeat a prompt.
std::string_view kind_of(const ordered_json* value) {
  if (value == nullptr) return "nothing";
  switch (value->type()) {
    case ordered_json::value_t::null:
      return "null";
    case ordered_json::value_t::boolean:
      return "a boolean";
    case ordered_json::value_t::string:
      return value->get_ref<const std::string&>().empty() ? "an empty string" : "a string";
    case ordered_json::value_t::array:
      return "an array";
    case ordered_json::value_t::object:
      return "an object";
    default:
      return "a number";
  }
}

const ordered_json* find(const ordered_json& object, std::string_view key) {
  const auto entry = object.find(std::string(key));
  return entry == object.end() ? nullptr : &*entry;
}

tl::unexpected<base::Error> expected(const std::string& where, std::string_view what,
                                     const ordered_json* got) {
  return base::invalid("{}: expected {}, got {}", where, what, kind_of(got));
}

Status check_optional_string(const ordered_json& object, std::string_view key,
                             const std::string& where) {
  const ordered_json* value = find(object, key);
  if (value == nullptr || value->is_null() || value->is_string()) return {};
  return expected(fmt::format("{}.{}", where, key), "a string", value);
}

// Letters, digits, _ and -: a role is written into the prompt as it is.
bool is_role_name(const std::string& role) {
  return !role.empty() && role.size() <= 32 && std::all_of(role.begin(), role.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

Status normalize_part(ordered_json& part, const std::string& where) {
  if (part.is_string()) part = ordered_json{{"type", "text"}, {"text", part}};
  if (!part.is_object()) return expected(where, "a text part", &part);
  const ordered_json* type = find(part, "type");
  if (type == nullptr || !type->is_string()) {
    return expected(where + ".type", "the type of a part", type);
  }
  const std::string& name = type->get_ref<const std::string&>();
  if (name != "text") {
    constexpr std::string_view kMedia[] = {"image",     "image_url",   "input_image", "audio",
                                           "audio_url", "input_audio", "video",       "video_url",
                                           "file",      "input_file"};
    if (std::find(std::begin(kMedia), std::end(kMedia), name) != std::end(kMedia)) {
      return base::unsupported(
          "{}: expected a text part, got a part of type {}; Tandem reads text "
          "only, leave it out",
          where, name);
    }
    return base::invalid("{}.type: expected \"text\", got another type", where);
  }
  const ordered_json* text = find(part, "text");
  if (text == nullptr || !text->is_string()) return expected(where + ".text", "a string", text);
  return {};
}

Status normalize_content(ordered_json& message, const std::string& where, const MessageForm& form) {
  const bool may_be_absent = message["role"] == "assistant";
  const auto entry = message.find("content");
  if (entry == message.end() || entry->is_null()) {
    if (may_be_absent) return {};
    return expected(where + ".content", "a string or an array of text parts",
                    entry == message.end() ? nullptr : &*entry);
  }
  ordered_json& content = *entry;
  if (content.is_string()) return {};
  if (!content.is_array()) {
    return expected(where + ".content", "a string or an array of text parts", &content);
  }
  for (size_t i = 0; i < content.size(); ++i) {
    TANDEM_RETURN_IF_ERROR(normalize_part(content[i], fmt::format("{}.content[{}]", where, i)));
  }
  if (form.content_parts) return {};
  std::string joined;
  for (size_t i = 0; i < content.size(); ++i) {
    if (i > 0) joined += '\n';
    joined += content[i]["text"].get_ref<const std::string&>();
  }
  content = std::move(joined);
  return {};
}

Status normalize_arguments(ordered_json& function, const std::string& where) {
  const auto entry = function.find("arguments");
  if (entry == function.end() || entry->is_null()) {
    function["arguments"] = ordered_json::object();
    return {};
  }
  ordered_json& arguments = *entry;
  if (arguments.is_object()) return {};
  if (!arguments.is_string()) return expected(where, "a JSON object or its text", &arguments);
  const std::string text = arguments.get<std::string>();
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    arguments = ordered_json::object();
    return {};
  }
  // Limits first: the parser itself would follow any depth.
  if (!io::check_json_limits(text, where, io::JsonLimits{})) {
    return base::invalid("{}: expected the text of a JSON object of moderate size and depth",
                         where);
  }
  std::optional<ordered_json> parsed = io::parse_ordered_json(text);
  if (!parsed) {
    return base::invalid("{}: expected the text of a JSON object, got broken JSON", where);
  }
  if (parsed->is_null()) parsed = ordered_json::object();
  if (!parsed->is_object()) return expected(where, "the text of a JSON object", &*parsed);
  arguments = std::move(*parsed);
  return {};
}

Status normalize_tool_call(ordered_json& call, const std::string& where) {
  if (!call.is_object()) return expected(where, "an object", &call);
  const ordered_json* type = find(call, "type");
  if (type != nullptr && !type->is_null() && *type != "function") {
    return base::invalid("{}.type: expected \"function\", got another type", where);
  }
  TANDEM_RETURN_IF_ERROR(check_optional_string(call, "id", where));
  const auto function = call.find("function");
  if (function == call.end() || !function->is_object()) {
    return expected(where + ".function", "an object",
                    function == call.end() ? nullptr : &*function);
  }
  const ordered_json* name = find(*function, "name");
  if (name == nullptr || !name->is_string()) {
    return expected(where + ".function.name", "a string", name);
  }
  return normalize_arguments(*function, where + ".function.arguments");
}

Status normalize_tool_calls(ordered_json& message, const std::string& where) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || calls->is_null()) return {};
  if (!calls->is_array()) return expected(where + ".tool_calls", "an array", &*calls);
  if (message["role"] != "assistant") {
    return base::invalid("{}.tool_calls: expected in messages of the assistant only", where);
  }
  for (size_t i = 0; i < calls->size(); ++i) {
    TANDEM_RETURN_IF_ERROR(
        normalize_tool_call((*calls)[i], fmt::format("{}.tool_calls[{}]", where, i)));
  }
  return {};
}

Status check_tool_responses(const ordered_json& message, const std::string& where) {
  const ordered_json* responses = find(message, "tool_responses");
  if (responses == nullptr || responses->is_null()) return {};
  if (!responses->is_array()) return expected(where + ".tool_responses", "an array", responses);
  for (size_t i = 0; i < responses->size(); ++i) {
    const ordered_json& response = (*responses)[i];
    const std::string place = fmt::format("{}.tool_responses[{}]", where, i);
    if (!response.is_object()) return expected(place, "an object", &response);
    TANDEM_RETURN_IF_ERROR(check_optional_string(response, "name", place));
  }
  return {};
}

Status normalize_message(ordered_json& message, const std::string& where, const MessageForm& form) {
  if (!message.is_object()) return expected(where, "an object", &message);
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string()) {
    return expected(where + ".role", "a string", role == message.end() ? nullptr : &*role);
  }
  if (!is_role_name(role->get_ref<const std::string&>())) {
    return base::invalid(
        "{}.role: expected system, developer, user, assistant or tool, got another text", where);
  }
  if (!form.developer_role && *role == "developer") *role = "system";
  for (const std::string_view key : {"name", "tool_call_id", "reasoning", "reasoning_content"}) {
    TANDEM_RETURN_IF_ERROR(check_optional_string(message, key, where));
  }
  const ordered_json* function_call = find(message, "function_call");
  if (function_call != nullptr && !function_call->is_null()) {
    return base::unsupported("{}.function_call: expected tool_calls, got the older form", where);
  }
  TANDEM_RETURN_IF_ERROR(normalize_tool_calls(message, where));
  TANDEM_RETURN_IF_ERROR(check_tool_responses(message, where));
  return normalize_content(message, where, form);
}

}  // namespace

Result<ordered_json> normalize_messages(const ordered_json& messages, const MessageForm& form) {
  if (!messages.is_array()) return expected("messages", "an array", &messages);
  if (messages.empty()) return base::invalid("messages: expected at least one message, got none");
  ordered_json result = messages;
  for (size_t i = 0; i < result.size(); ++i) {
    TANDEM_RETURN_IF_ERROR(normalize_message(result[i], fmt::format("messages[{}]", i), form));
  }
  return result;
}

Status check_tools(const ordered_json& tools) {
  if (!tools.is_array()) return expected("tools", "an array", &tools);
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    if (!tools[i].is_object()) return expected(where, "an object", &tools[i]);
    const ordered_json* type = find(tools[i], "type");
    if (type != nullptr && *type != "function") {
      return base::invalid("{}.type: expected \"function\", got another type", where);
    }
    const ordered_json* function = find(tools[i], "function");
    if (function == nullptr || !function->is_object()) {
      return expected(where + ".function", "an object", function);
    }
    const ordered_json* name = find(*function, "name");
    if (name == nullptr || !name->is_string() || name->get_ref<const std::string&>().empty()) {
      return expected(where + ".function.name", "a name", name);
    }
    TANDEM_RETURN_IF_ERROR(check_optional_string(*function, "description", where + ".function"));
    const ordered_json* parameters = find(*function, "parameters");
    if (parameters != nullptr && !parameters->is_null() && !parameters->is_object()) {
      return expected(where + ".function.parameters", "a JSON schema", parameters);
    }
  }
  return {};
}

bool is_begun(const ordered_json& message) {
  const auto says = [](const ordered_json& object, const char* key) {
    const auto value = object.find(key);
    if (value == object.end()) return false;
    return value->is_string() ? !value->get_ref<const std::string&>().empty() : !value->empty();
  };
  if (message["role"] != "assistant") return true;
  for (const char* key : {"tool_calls", "reasoning", "reasoning_content"})
    if (says(message, key)) return true;
  if (!says(message, "content")) return false;
  const ordered_json& content = message["content"];
  return !content.is_array() || std::ranges::any_of(content, [&](const ordered_json& part) {
    return !part.contains("text") || says(part, "text");
  });
}

}  // namespace tandem::text
