// /v1/chat/completions: messages through the template to ids.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "server/answer_form.h"
#include "server/request.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
constexpr size_t kMaxKwargs = 1000;

// A misspelt role would be rendered as it is, and the model would make of it what it likes.
void check_roles(Fields& fields, const json& messages) {
  constexpr std::array kRoles = {"system", "developer", "user", "assistant", "tool"};
  for (size_t i = 0; i < messages.size(); ++i) {
    const json role = messages[i].is_object() ? messages[i].value("role", json()) : json();
    const bool known = std::ranges::any_of(kRoles, [&](const char* name) { return role == name; });
    if (known) continue;
    return fields.fail(fmt::format("messages[{}].role", i),
                       fmt::format("expected one of {}, got {}", fmt::join(kRoles, ", "),
                                   io::describe_json(role)));
  }
}

ordered_json template_kwargs(Fields& fields, const ordered_json& body, const ServedModel& model) {
  ordered_json kwargs = *model.template_kwargs;
  const auto effort = fields.string("reasoning_effort", 64);
  if (effort) kwargs["enable_thinking"] = *effort != "none";
  const json* given = fields.object("chat_template_kwargs");
  if (given != nullptr && given->size() > kMaxKwargs)
    fields.fail("chat_template_kwargs",
                fmt::format("expected at most {} fields, got {}", kMaxKwargs, given->size()));
  else if (given != nullptr)
    kwargs.update(body["chat_template_kwargs"]);
  if (fields.array("documents") != nullptr) kwargs["documents"] = body["documents"];
  return kwargs;
}

// The request's own template, where the server trusts requests that far.
base::Result<std::optional<text::ChatTemplate>> read_template(Fields& fields,
                                                              const ServedModel& model) {
  constexpr const char* kField = "chat_template";
  const auto source = fields.string(kField, kMaxTemplateBytes);
  if (!source) return std::nullopt;
  if (!model.trust_templates) {
    fields.fail(kField,
                "not supported: the server's template is used; --trust-request-chat-template "
                "allows others");
    return std::nullopt;
  }
  TANDEM_ASSIGN_OR_RETURN(text::ChatTemplate parsed, text::ChatTemplate::parse(*source, kField));
  return parsed;
}

void read_logprobs(Fields& fields, sampling::SamplingParams& params) {
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, 20);
  if (top && !wanted) fields.fail("top_logprobs", "expected none without \"logprobs\": true");
  if (wanted) params.num_logprobs = static_cast<int32_t>(top.value_or(0));
  if (params.logprob_token_ids.empty()) return;
  if (!wanted) fields.fail("logprob_token_ids", "expected none without \"logprobs\": true");
  if (top) fields.fail("logprob_token_ids", "expected none beside top_logprobs");
}

}  // namespace

ApiResult<ChatPrompt> encode_chat(std::string_view body, Fields& fields, const ServedModel& model) {
  const json* messages = fields.array("messages");
  if (messages != nullptr) check_roles(fields, *messages);
  ChatPrompt prompt;
  prompt.tool_choice = read_tool_choice(fields);
  const json* tools = fields.array("tools");
  auto own_template = read_template(fields, model);
  fields.refuse("functions", "use tools");
  fields.refuse("function_call", "use tool_choice");
  // The order of keys reaches the template: this copy keeps it. The body has been checked.
  const ordered_json ordered = *io::parse_ordered_json(body);
  const ordered_json kwargs = template_kwargs(fields, ordered, model);
  text::ChatRequest chat;
  chat.continue_final_message = fields.boolean("continue_final_message").value_or(false);
  chat.add_generation_prompt =
      fields.boolean("add_generation_prompt").value_or(!chat.continue_final_message);
  if (chat.continue_final_message && chat.add_generation_prompt)
    fields.fail("continue_final_message", "expected \"add_generation_prompt\": false with it");
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  if (messages == nullptr || messages->empty())
    return api_error(400, "messages: expected a list of at least one message", "messages");
  const bool has_tools =
      prompt.tool_choice.kind != ToolChoice::Kind::kNone && tools != nullptr && !tools->empty();
  if (prompt.tool_choice.forced() && !has_tools)
    return api_error(400, "tool_choice: expected tools to choose from, got none", "tool_choice");
  chat.messages = &ordered["messages"];
  chat.tools = has_tools ? &ordered["tools"] : nullptr;
  chat.template_kwargs = &kwargs;
  if (!own_template)
    return tl::unexpected<ApiError>(ApiError{400, own_template.error().message, "chat_template"});
  auto segments = own_template->value_or(model.chat_template).render(chat);
  if (!segments) {
    ApiError error = from_error(segments.error());
    error.status = 400;
    if (!error.param) error.param = "messages";
    return tl::unexpected<ApiError>(std::move(error));
  }
  prompt.ids = model.tokenizer.encode_segments(*segments);
  prompt.thought = thought_after(prompt.ids, text::thinking_is_on(kwargs), model.tokenizer);
  if (!has_tools) return prompt;
  prompt.tools = text::ToolSchemas::from_json(*tools);
  prompt.tool_choice.tools = std::make_shared<const ordered_json>(ordered["tools"]);
  return prompt;
}

ApiResult<ChatRequest> parse_chat(std::string_view body, const ServedModel& model) {
  auto parsed = parse_body(body);
  if (!parsed) return tl::unexpected<ApiError>(std::move(parsed.error()));
  Fields fields(*parsed);
  if (auto error = check_model(fields, model)) return tl::unexpected<ApiError>(*error);
  ChatRequest request;
  request.params = read_params(fields, model);
  const auto most = fields.integer("max_completion_tokens", 1, int64_t{1} << 40);
  if (most) request.params.max_tokens = most;
  if (request.params.max_tokens == 0)
    fields.fail("max_tokens", "expected an integer of at least 1, got 0");
  read_logprobs(fields, request.params.sampling);
  read_thinking_budget(fields, model.tokenizer, request.params);
  request.include_reasoning = fields.boolean("include_reasoning").value_or(true);
  fields.refuse("echo", "use continue_final_message");
  fields.refuse("add_special_tokens", "the template writes them");
  auto form = read_content_form(fields, body);
  auto prompt = encode_chat(body, fields, model);
  if (auto error = fields.finish()) return tl::unexpected<ApiError>(*error);
  if (!form) return tl::unexpected<ApiError>(std::move(form.error()));
  if (!prompt) return tl::unexpected<ApiError>(std::move(prompt.error()));
  request.prompt = std::move(prompt->ids);
  request.params.in_thought = prompt->thought == text::Thought::kOpen;
  truncate_prompt(request.prompt, request.params, model);
  request.tools = std::move(prompt->tools);
  if (auto error = check_prompt(request.prompt, model, request.params.max_tokens)) {
    error->param = "messages";
    return tl::unexpected<ApiError>(*error);
  }
  // The dearest part comes last.
  auto grammar =
      compile_form(fields, std::move(*form), request.tools ? &prompt->tool_choice : nullptr,
                   prompt->thought, request.params.sampling, model);
  if (!grammar) return tl::unexpected<ApiError>(std::move(grammar.error()));
  request.params.grammar = std::move(*grammar);
  return request;
}

}  // namespace tandem::server
