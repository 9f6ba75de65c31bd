#include "server/responses_request.h"

#include <array>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "server/chat_translation.h"
#include "server/json_text.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kNames = {
    {{"max_completion_tokens", "max_output_tokens"},
     {"response_format.json_schema", "text.format"},
     {"response_format", "text.format"},
     {"reasoning_effort", "reasoning.effort"},
     {"messages", "input"}}};
constexpr std::array<std::string_view, 4> kSame = {"parallel_tool_calls", "stop",
                                                   "safety_identifier", "user"};

// The items that the answer follows: the earlier response's, then the request's.
std::shared_ptr<ordered_json> read_input(Fields& fields, const ordered_json& body,
                                         ResponseStore& store, ordered_json& messages) {
  auto items = std::make_shared<ordered_json>(ordered_json::array());
  const auto previous = fields.string("previous_response_id", 4096);
  if (previous && !store.enabled())
    fields.fail("previous_response_id",
                "not supported: this server keeps no responses (--response-store-mib 0); send the "
                "items again");
  if (previous && !fields.error()) {
    const auto stored = store.get(*previous);
    if (stored)
      *items = *io::parse_ordered_json(stored->items);
    else
      fields.fail("previous_response_id", "expected a response that this server keeps, got " +
                                              io::describe_json(*previous) +
                                              "; older ones are dropped, send the items again");
  }
  const size_t num_earlier = items->size();
  const json* input = fields.any("input");
  if (input == nullptr || (!input->is_string() && !input->is_array()))
    fields.fail("input", "expected a string or a list of items");
  else if (input->is_string())
    items->push_back({{"type", "message"}, {"role", "user"}, {"content", *input}});
  else
    for (const ordered_json& item : body["input"]) items->push_back(item);
  if (items->empty()) fields.fail("input", "expected at least one item");
  if (!fields.error()) add_item_messages(fields, *items, num_earlier, messages);
  return items;
}

void read_tools(Fields& fields, const ordered_json& body, ordered_json& chat, ordered_json& reply) {
  reply["tools"] = ordered_json::array();
  const json* tools = fields.array("tools");
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    Fields tool((*tools)[i], element_path("tools", i));
    const std::string type = tool.string("type", 64).value_or("");
    if (type != "function")
      tool.fail("type", "expected function, got " + io::describe_json(type) +
                            "; this server runs no tools of its own");
    const auto name = tool.string("name", 4096);
    if (!name) tool.fail("name", "expected a string, got none");
    const auto description = tool.string("description", kMaxBodyBytes);
    const bool has_schema = tool.object("parameters") != nullptr;
    const auto strict = tool.boolean("strict");
    tool.finish();
    if (!fields.take(tool)) return;
    ordered_json function = {{"name", *name}};
    if (description) function["description"] = *description;
    if (has_schema) function["parameters"] = body["tools"][i]["parameters"];
    ordered_json told = {{"type", "function"}, {"name", *name}};
    told["description"] = description ? ordered_json(*description) : ordered_json();
    told["parameters"] = function.value("parameters", ordered_json());
    told["strict"] = strict.value_or(false);
    if (strict) function["strict"] = *strict;
    chat["tools"].push_back({{"type", "function"}, {"function", std::move(function)}});
    reply["tools"].push_back(std::move(told));
  }
}

void read_tool_choice(Fields& fields, const ordered_json& body, ordered_json& chat,
                      ordered_json& reply) {
  const json* value = fields.any("tool_choice");
  reply["tool_choice"] = value == nullptr ? ordered_json("auto") : body["tool_choice"];
  if (value == nullptr) return;
  if (value->is_string()) {
    chat["tool_choice"] = *value;
    return;
  }
  Fields choice(*value, "tool_choice");
  const std::string type = choice.string("type", 64).value_or("");
  const auto name = choice.string("name", 4096);
  if (type != "function" || !name)
    choice.fail("type", "expected function with a name, got " + io::describe_json(type));
  choice.finish();
  if (!fields.take(choice)) return;
  chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", *name}}}};
}

// text.format names in one object what a chat names in two.
void read_text(Fields& fields, const ordered_json& body, ordered_json& chat, ordered_json& reply) {
  reply["text"] = {{"format", {{"type", "text"}}}};
  const json* value = fields.object("text");
  if (value == nullptr) return;
  Fields text(*value, "text");
  const bool has_format = text.object("format") != nullptr;
  text.ignore({"verbosity"});
  text.finish();
  if (!fields.take(text) || !has_format) return;
  ordered_json schema = body["text"]["format"];
  reply["text"]["format"] = schema;
  const ordered_json type = schema.value("type", ordered_json());
  // What else stands beside another type is the chat's to refuse.
  chat["response_format"] = {{"type", type}};
  schema.erase("type");
  if (type == "json_schema")
    chat["response_format"]["json_schema"] = std::move(schema);
  else
    chat["response_format"].update(schema);
}

void read_reasoning(Fields& fields, ordered_json& chat, ordered_json& reply) {
  reply["reasoning"] = {{"effort", nullptr}, {"summary", nullptr}};
  const json* value = fields.object("reasoning");
  if (value == nullptr) return;
  Fields reasoning(*value, "reasoning");
  const auto effort = reasoning.string("effort", 64);
  reasoning.ignore({"summary", "generate_summary"});
  reasoning.finish();
  if (!fields.take(reasoning) || !effort) return;
  chat["reasoning_effort"] = *effort;
  reply["reasoning"]["effort"] = *effort;
}

// What may be asked to be included: the only thing there is, the text of reasoning, always is.
void read_include(Fields& fields) {
  for (const std::string& name : fields.strings("include", 64))
    if (name != "reasoning.encrypted_content")
      fields.fail("include", "not supported: " + io::describe_json(name));
}

void refuse_unsupported(Fields& fields) {
  fields.refuse("background", "answers are sent while they are made");
  fields.refuse("conversation", "use previous_response_id");
  fields.refuse("prompt", "send the text in input");
  fields.refuse("max_tool_calls", "this server runs no tools of its own");
  fields.refuse("context_management", "leave it out");
  const std::string truncation = fields.string("truncation", 64).value_or("disabled");
  if (truncation != "disabled")
    fields.fail("truncation", "expected disabled, got " + io::describe_json(truncation));
  if (const auto top = fields.integer("top_logprobs", 0, 20); top && *top > 0)
    fields.fail("top_logprobs", "expected 0; /v1/chat/completions has log-probabilities");
  fields.ignore({"service_tier", "prompt_cache_key", "prompt_cache_retention",
                 "prompt_cache_options", "client_metadata"});
  const json* options = fields.object("stream_options");
  if (options == nullptr) return;
  Fields inner(*options, "stream_options");
  inner.ignore({"include_obfuscation"});
  inner.finish();
  fields.take(inner);
}

// The fields of the reply in OpenAI's order; the answer is filled in later.
ordered_json empty_reply() {
  ordered_json reply;
  for (const char* key : {"id",
                          "object",
                          "created_at",
                          "status",
                          "background",
                          "completed_at",
                          "error",
                          "incomplete_details",
                          "instructions",
                          "max_output_tokens",
                          "max_tool_calls",
                          "metadata",
                          "model",
                          "output",
                          "parallel_tool_calls",
                          "previous_response_id",
                          "reasoning",
                          "service_tier",
                          "store",
                          "temperature",
                          "text",
                          "tool_choice",
                          "tools",
                          "top_logprobs",
                          "top_p",
                          "truncation",
                          "usage",
                          "user"})
    reply[key] = nullptr;
  reply["object"] = "response";
  reply["status"] = "in_progress";
  reply["background"] = false;
  reply["output"] = ordered_json::array();
  reply["service_tier"] = "default";
  reply["top_logprobs"] = 0;
  reply["truncation"] = "disabled";
  return reply;
}

}  // namespace

ApiResult<ResponsesRequest> parse_responses(std::string_view body, const ServedModel& model,
                                            ResponseStore& store) {
  auto parsed = parse_body(body);
  if (!parsed) return tl::unexpected<ApiError>(std::move(parsed.error()));
  const ordered_json ordered = *io::parse_ordered_json(body);
  Fields fields(*parsed);
  ordered_json chat = {{"messages", ordered_json::array()}};
  ordered_json reply = empty_reply();
  copy_fields(fields, ordered, common_fields(), chat);
  copy_fields(fields, ordered, kSame, chat);
  ResponsesRequest request;
  const auto instructions = fields.string("instructions", kMaxBodyBytes);
  if (instructions) {
    chat["messages"].push_back({{"role", "system"}, {"content", *instructions}});
    reply["instructions"] = *instructions;
  }
  request.input = read_input(fields, ordered, store, chat["messages"]);
  read_tools(fields, ordered, chat, reply);
  read_tool_choice(fields, ordered, chat, reply);
  read_text(fields, ordered, chat, reply);
  read_reasoning(fields, chat, reply);
  read_include(fields);
  refuse_unsupported(fields);
  if (const auto most = fields.integer("max_output_tokens", 1, int64_t{1} << 40))
    reply["max_output_tokens"] = chat["max_completion_tokens"] = *most;
  request.store = fields.boolean("store").value_or(true) && store.enabled();
  const bool has_metadata = fields.object("metadata") != nullptr;
  if (auto error = fields.finish()) return tl::unexpected<ApiError>(*error);
  reply["metadata"] = has_metadata ? ordered["metadata"] : ordered_json::object();
  for (const char* key : {"previous_response_id", "user"})
    if (ordered.contains(key)) reply[key] = ordered[key];
  reply["parallel_tool_calls"] = chat.value("parallel_tool_calls", ordered_json(true));
  reply["store"] = request.store;
  auto checked = parse_chat(json_text(chat), model);
  if (!checked) return tl::unexpected<ApiError>(renamed(std::move(checked.error()), kNames));
  request.chat = std::move(*checked);
  reply["temperature"] = request.chat.params.sampling.temperature;
  reply["top_p"] = request.chat.params.sampling.top_p;
  request.reply = std::make_shared<ordered_json>(std::move(reply));
  return request;
}

}  // namespace tandem::server
