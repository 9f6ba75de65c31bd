#include "text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/chat_template_state.h"
#include "text/jinja/limits.h"
#include "text/jinja/rope_ops.h"
#include "text/jinja/value.h"
#include "text/message.h"

namespace tandem::text {
namespace {

using base::Result;
using base::Status;
using jinja::Rope;
using jinja::Value;
using nlohmann::ordered_json;

// Templates of this family look through all messages for every message.
constexpr int64_t kFuelPerMessage = 10'000;
constexpr int64_t kMaxFuel = 60'000'000;
// Marks where the final message ends, the way transformers does.
constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";
constexpr std::string_view kContinueTagWord = kContinueTag.substr(0, kContinueTag.size() - 1);

Status check_request(const ChatRequest& request) {
  if (request.messages == nullptr) return base::invalid("messages: expected an array, got nothing");
  if (request.add_generation_prompt && request.continue_final_message) {
    return base::invalid(
        "continue_final_message: expected add_generation_prompt to be false, got both");
  }
  if (request.tools != nullptr && !request.tools->is_null()) {
    TANDEM_RETURN_IF_ERROR(check_tools(*request.tools));
  }
  const ordered_json* kwargs = request.template_kwargs;
  if (kwargs == nullptr || kwargs->is_null()) return {};
  if (!kwargs->is_object()) {
    return base::invalid("chat_template_kwargs: expected an object, got something else");
  }
  return check_template_kwargs(*kwargs, "chat_template_kwargs");
}

// The text of the final message that the model shall go on with.
Result<std::string*> final_text(ordered_json& messages) {
  ordered_json& last = messages.back();
  const auto content = last.find("content");
  if (content != last.end() && content->is_string()) return content->get_ptr<std::string*>();
  if (content != last.end() && content->is_array()) {
    for (size_t i = content->size(); i-- > 0;) {
      const auto text = (*content)[i].find("text");
      if (text != (*content)[i].end()) return text->get_ptr<std::string*>();
    }
  }
  return base::invalid(
      "continue_final_message: expected text in the final message to go on with, got none");
}

// Cuts the prompt where the marked final message ends.
Result<Rope> cut_at_tag(const Rope& prompt, const std::string& final_message) {
  jinja::Meter meter(jinja::kDefaultFuel);
  const Rope wanted = jinja::strip(Rope(final_message, false), nullptr, jinja::Side::kBoth, meter);
  const size_t tag = prompt.text().rfind(kContinueTagWord);
  if (tag == std::string::npos || prompt.text().find(wanted.text()) == std::string::npos) {
    return base::invalid(
        "continue_final_message: expected the final message in the prompt, got none; the chat "
        "template drops or changes it");
  }
  const Rope kept = prompt.slice(0, tag);
  // Of a message of blanks the template has left nothing: those in front are its own.
  if (wanted.empty() || prompt.text().compare(tag, kContinueTag.size(), kContinueTag) == 0)
    return kept;
  return jinja::strip(kept, nullptr, jinja::Side::kRight, meter);  // the template trimmed it
}

std::vector<TextSegment> to_segments(const Rope& rope) {
  std::vector<TextSegment> segments;
  rope.for_each_run(0, rope.size(), [&](std::string_view piece, bool trusted) {
    segments.push_back(TextSegment{std::string(piece), trusted});
  });
  return segments;
}

Value json_or_none(const ordered_json* json) {
  return json == nullptr ? Value(jinja::None{}) : jinja::from_json(*json, /*trusted=*/false);
}

}  // namespace

Result<NamedTemplate> compile_template(std::string_view source, std::string name) {
  NamedTemplate result;
  TANDEM_ASSIGN_OR_RETURN(result.compiled, jinja::Template::parse(source, std::move(name)));
  result.form.content_parts = result.compiled.iterates_over("content");
  result.form.developer_role = source.find("developer") != std::string_view::npos;
  return result;
}

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, std::string name) {
  auto state = std::make_shared<ChatTemplateState>();
  TANDEM_ASSIGN_OR_RETURN(state->main, compile_template(source, std::move(name)));
  state->special_tokens = {{"bos_token", "<bos>"},
                           {"eos_token", "<eos>"},
                           {"pad_token", "<pad>"},
                           {"unk_token", "<unk>"}};
  return ChatTemplate(std::move(state));
}

Result<std::vector<TextSegment>> ChatTemplate::render(const ChatRequest& request) const {
  TANDEM_RETURN_IF_ERROR(check_request(request));
  const bool has_tools = request.tools != nullptr && !request.tools->is_null();
  const NamedTemplate& chosen = has_tools && state_->tool_use ? *state_->tool_use : state_->main;
  TANDEM_ASSIGN_OR_RETURN(ordered_json messages,
                          normalize_messages(*request.messages, chosen.form));
  const bool begins =
      request.continue_final_message && messages.size() > 1 && !is_begun(messages.back());
  if (begins) messages.erase(messages.size() - 1);
  const bool continues = request.continue_final_message && !begins;
  std::string final_message;
  if (continues) {
    TANDEM_ASSIGN_OR_RETURN(std::string * text, final_text(messages));
    final_message = *text;
    text->append(kContinueTag);
  }

  jinja::Template::Variables variables;
  for (const auto& [name, token] : state_->special_tokens) {
    variables.emplace_back(name, Value::text(token));
  }
  variables.emplace_back("documents", jinja::None{});
  try {
    if (request.template_kwargs != nullptr && !request.template_kwargs->is_null()) {
      for (const auto& [name, value] : request.template_kwargs->items()) {
        std::erase_if(variables, [&](const auto& variable) { return variable.first == name; });
        variables.emplace_back(name, jinja::from_json(value, /*trusted=*/false));
      }
    }
    variables.emplace_back("messages", jinja::from_json(messages, /*trusted=*/false));
    variables.emplace_back("tools", json_or_none(request.tools));
  } catch (const jinja::TemplateError& error) {
    return base::invalid("messages: {}", error.what());
  }
  variables.emplace_back("add_generation_prompt", begins || request.add_generation_prompt);

  jinja::RenderOptions options;
  options.fuel = std::min(
      kMaxFuel, jinja::kDefaultFuel + static_cast<int64_t>(messages.size()) * kFuelPerMessage);
  options.now = request.now.value_or(std::time(nullptr));
  TANDEM_ASSIGN_OR_RETURN(Rope prompt, chosen.compiled.render(variables, options));
  if (!continues) return to_segments(prompt);
  TANDEM_ASSIGN_OR_RETURN(const Rope cut, cut_at_tag(prompt, final_message));
  return to_segments(cut);
}

Status check_template_kwargs(const ordered_json& kwargs, std::string_view where) {
  for (const char* reserved :
       {"messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template"}) {
    if (kwargs.contains(reserved))
      return base::invalid("{}: expected no field '{}'; set it in the request", where, reserved);
  }
  return {};
}

bool thinking_is_on(const ordered_json& kwargs) {
  if (!kwargs.is_object()) return false;
  const auto found = kwargs.find("enable_thinking");
  return found != kwargs.end() && jinja::truthy(jinja::from_json(*found, /*trusted=*/false));
}

std::string join_segments(const std::vector<TextSegment>& segments) {
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

}  // namespace tandem::text
