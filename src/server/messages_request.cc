#include "server/messages_request.h"

#include <array>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "server/chat_translation.h"
#include "server/json_text.h"
#include "server/messages_format.h"
#include "text/message.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::array<std::string_view, 1> kText = {"text"};
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kNames = {
    {{"max_completion_tokens", "max_tokens"},
     {"stop", "stop_sequences"},
     {"parallel_tool_calls", "tool_choice.disable_parallel_tool_use"},
     {"response_format", "output_config.format"},
     {"include_reasoning", "thinking.type"},
     {"thinking_token_budget", "thinking.budget_tokens"},
     {"messages", "messages"}}};

// The content blocks of one message, as messages of a chat.
class MessageReader {
 public:
  MessageReader(std::string role, ordered_json& out) : role_(std::move(role)), out_(out) {}

  // `ordered` is the same block, with its keys in order.
  void read(Fields& block, const ordered_json& ordered) {
    const std::string type = block.string("type", 64).value_or("");
    if (block.error()) return;
    if (type == "text") return add_text(part_text(block, kText));
    if (role_ == "user" && type == "tool_result") return add_result(block);
    if (role_ == "assistant" && type == "tool_use") return add_call(block, ordered);
    if (role_ == "assistant" && type == "thinking") {
      reasoning_ += block.string("thinking", kMaxBodyBytes).value_or("");
      block.ignore({"signature"});
      return;
    }
    if (role_ == "assistant" && type == "redacted_thinking") return block.ignore({"data"});
    block.fail(
        "type",
        fmt::format("expected {} of {} message, got {}; Tandem reads text only",
                    role_ == "user" ? "text or tool_result" : "text, thinking or tool_use",
                    role_ == "user" ? "a user's" : "an assistant's", io::describe_json(type)));
  }

  // What has been read since the last tool result.
  void flush() {
    if (parts_.empty() && calls_.empty() && reasoning_.empty()) return;
    ordered_json message = {{"role", role_}};
    if (!parts_.empty()) message["content"] = parts_.size() == 1 ? parts_[0]["text"] : parts_;
    if (!reasoning_.empty()) message["reasoning"] = reasoning_;
    if (!calls_.empty()) message["tool_calls"] = calls_;
    out_.push_back(std::move(message));
    parts_ = calls_ = ordered_json::array();
    reasoning_.clear();
  }

 private:
  void add_text(const std::string& text) { parts_.push_back({{"type", "text"}, {"text", text}}); }

  void add_result(Fields& block) {
    flush();
    const auto id = block.string("tool_use_id", 4096);
    if (!id) block.fail("tool_use_id", "expected the id of a tool_use block");
    ordered_json content = text_content(block, "content", kText);
    if (content.is_null()) content = "";
    block.boolean("is_error");
    out_.push_back(
        {{"role", "tool"}, {"tool_call_id", id.value_or("")}, {"content", std::move(content)}});
  }

  void add_call(Fields& block, const ordered_json& ordered) {
    const auto id = block.string("id", 4096);
    const auto name = block.string("name", 4096);
    if (!id) block.fail("id", "expected a string, got none");
    if (!name) block.fail("name", "expected a string, got none");
    if (block.object("input") == nullptr) block.fail("input", "expected an object, got none");
    block.ignore({"caller"});
    if (block.error()) return;
    calls_.push_back({{"id", *id},
                      {"type", "function"},
                      {"function", {{"name", *name}, {"arguments", ordered["input"]}}}});
  }

  std::string role_;
  ordered_json& out_;
  ordered_json parts_ = ordered_json::array();
  ordered_json calls_ = ordered_json::array();
  std::string reasoning_;
};

void read_message(Fields& message, const ordered_json& ordered, ordered_json& out) {
  const std::string role = message.string("role", 64).value_or("");
  if (role != "user" && role != "assistant")
    return message.fail("role", "expected user or assistant, got " + io::describe_json(role) +
                                    "; a system prompt stands in system");
  const json* content = message.any("content");
  if (content == nullptr) return message.fail("content", "expected a string or a list of blocks");
  if (content->is_string()) return out.push_back({{"role", role}, {"content", *content}});
  if (!content->is_array())
    return message.fail(
        "content", "expected a string or a list of blocks, got " + io::describe_json(*content));
  MessageReader reader(role, out);
  for (size_t i = 0; i < content->size(); ++i) {
    Fields block((*content)[i], element_path(message.path_of("content"), i));
    block.ignore({"cache_control"});
    reader.read(block, ordered["content"][i]);
    block.finish();
    if (!message.take(block)) return;
  }
  reader.flush();
}

void read_messages(Fields& fields, const ordered_json& body, ordered_json& chat) {
  const json* messages = fields.array("messages");
  if (messages == nullptr || messages->empty())
    return fields.fail("messages", "expected a list of at least one message");
  ordered_json last;  // what the last one has become
  for (size_t i = 0; i < messages->size(); ++i) {
    Fields message((*messages)[i], element_path("messages", i));
    last = ordered_json::array();
    read_message(message, body["messages"][i], last);
    message.finish();
    if (!fields.take(message)) return;
    for (const ordered_json& one : last) chat["messages"].push_back(one);
  }
  // An answer that is begun is gone on with; an empty one has not been begun.
  if (messages->back()["role"] != "assistant" || last.empty()) return;
  if (!text::is_begun(last.back())) return chat["messages"].erase(chat["messages"].size() - 1);
  chat["continue_final_message"] = true;
  chat["add_generation_prompt"] = false;
}

void read_tools(Fields& fields, const ordered_json& body, ordered_json& chat) {
  const json* tools = fields.array("tools");
  if (tools == nullptr) return;
  for (size_t i = 0; i < tools->size(); ++i) {
    Fields tool((*tools)[i], element_path("tools", i));
    const std::string type = tool.string("type", 64).value_or("custom");
    if (type != "custom")
      tool.fail("type", "expected custom, got " + io::describe_json(type) +
                            "; this server runs no tools of its own");
    const auto name = tool.string("name", 4096);
    if (!name) tool.fail("name", "expected a string, got none");
    const auto description = tool.string("description", kMaxBodyBytes);
    const bool has_schema = tool.object("input_schema") != nullptr;
    const auto strict = tool.boolean("strict");
    tool.ignore({"cache_control", "input_examples", "eager_input_streaming"});
    tool.finish();
    if (!fields.take(tool)) return;
    ordered_json function = {{"name", *name}};
    if (description) function["description"] = *description;
    if (has_schema) function["parameters"] = body["tools"][i]["input_schema"];
    if (strict) function["strict"] = *strict;
    chat["tools"].push_back({{"type", "function"}, {"function", std::move(function)}});
  }
}

void read_tool_choice(Fields& fields, ordered_json& chat) {
  const json* value = fields.object("tool_choice");
  if (value == nullptr) return;
  Fields choice(*value, "tool_choice");
  const std::string type = choice.string("type", 64).value_or("");
  const auto name = choice.string("name", 4096);
  const bool single = choice.boolean("disable_parallel_tool_use").value_or(false);
  if (type == "auto" || type == "none")
    chat["tool_choice"] = type;
  else if (type == "any")
    chat["tool_choice"] = "required";
  else if (type == "tool" && name)
    chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", *name}}}};
  else
    choice.fail("type",
                "expected auto, any, none, or tool with a name, got " + io::describe_json(type));
  if (single) chat["parallel_tool_calls"] = false;
  choice.finish();
  fields.take(choice);
}

void read_thinking(Fields& fields, ordered_json& chat) {
  const json* value = fields.object("thinking");
  if (value == nullptr) return;
  Fields thinking(*value, "thinking");
  const std::string type = thinking.string("type", 64).value_or("");
  const auto budget = thinking.integer("budget_tokens", 1, int64_t{1} << 40);
  const std::string display = thinking.string("display", 64).value_or("summarized");
  if (type != "enabled" && type != "adaptive" && type != "disabled")
    thinking.fail("type", "expected enabled, adaptive or disabled, got " + io::describe_json(type));
  if (display != "summarized" && display != "omitted")
    thinking.fail("display", "expected summarized or omitted, got " + io::describe_json(display));
  thinking.finish();
  if (!fields.take(thinking)) return;
  const bool on = type != "disabled";
  chat["reasoning_effort"] = on ? "high" : "none";
  chat["include_reasoning"] = on && display != "omitted";
  if (on && budget) chat["thinking_token_budget"] = *budget;
}

void read_output_config(Fields& fields, const ordered_json& body, ordered_json& chat) {
  const json* value = fields.object("output_config");
  if (value == nullptr) return;
  Fields config(*value, "output_config");
  config.ignore({"effort"});
  const bool has_format = config.object("format") != nullptr;
  config.finish();
  if (!fields.take(config) || !has_format) return;
  Fields format((*value)["format"], "output_config.format");
  const std::string type = format.string("type", 64).value_or("");
  const bool has_schema = format.any("schema") != nullptr;
  format.finish();
  if (!fields.take(format)) return;
  chat["response_format"] = {{"type", type}};
  if (type != "json_schema" && !has_schema) return;
  ordered_json schema = {{"name", "output"}, {"strict", true}};
  if (has_schema) schema["schema"] = body["output_config"]["format"]["schema"];
  chat["response_format"]["json_schema"] = std::move(schema);
}

// The body of a chat that asks the same.
ApiResult<std::string> translate(std::string_view body, bool counts) {
  auto parsed = parse_body(body);
  if (!parsed) return tl::unexpected<ApiError>(std::move(parsed.error()));
  const ordered_json ordered = *io::parse_ordered_json(body);
  Fields fields(*parsed);
  if (fields.any("thread") != nullptr)
    return api_error(400, "thread: not supported: send the whole conversation in messages",
                     "thread", kNoThreads);
  ordered_json chat = {{"messages", ordered_json::array()}};
  copy_fields(fields, ordered, common_fields(), chat);
  const ordered_json system = text_content(fields, "system", kText);
  if (!system.is_null()) chat["messages"].push_back({{"role", "system"}, {"content", system}});
  read_messages(fields, ordered, chat);
  read_tools(fields, ordered, chat);
  read_tool_choice(fields, chat);
  read_thinking(fields, chat);
  read_output_config(fields, ordered, chat);
  const auto stop = fields.strings("stop_sequences", kMaxStopStrings);
  if (!stop.empty()) chat["stop"] = stop;
  const auto max_tokens = fields.integer("max_tokens", 1, int64_t{1} << 40);
  if (max_tokens)
    chat["max_completion_tokens"] = *max_tokens;
  else if (!counts)
    fields.fail("max_tokens", "expected the most tokens of the answer, got none");
  fields.ignore({"metadata", "service_tier", "cache_control"});
  if (auto error = fields.finish()) return tl::unexpected<ApiError>(*error);
  return json_text(chat);
}

}  // namespace

ApiResult<ChatRequest> parse_messages(std::string_view body, const ServedModel& model) {
  auto chat = translate(body, false);
  if (!chat) return tl::unexpected<ApiError>(std::move(chat.error()));
  auto request = parse_chat(*chat, model);
  if (!request) return tl::unexpected<ApiError>(renamed(std::move(request.error()), kNames));
  return request;
}

ApiResult<int64_t> count_messages(std::string_view body, const ServedModel& model) {
  auto chat = translate(body, true);
  if (!chat) return tl::unexpected<ApiError>(std::move(chat.error()));
  auto parsed = parse_body(*chat);
  if (!parsed) return tl::unexpected<ApiError>(std::move(parsed.error()));
  Fields fields(*parsed);
  if (auto error = check_model(fields, model)) return tl::unexpected<ApiError>(*error);
  auto prompt = encode_chat(*chat, fields, model);
  if (!prompt) return tl::unexpected<ApiError>(renamed(std::move(prompt.error()), kNames));
  return static_cast<int64_t>(prompt->ids.size());
}

}  // namespace tandem::server
