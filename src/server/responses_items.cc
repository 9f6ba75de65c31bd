// Items of /v1/responses as messages of a chat.
#include <array>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "server/chat_translation.h"
#include "server/responses_request.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::array<std::string_view, 3> kText = {"input_text", "output_text", "text"};
constexpr std::array<std::string_view, 1> kSummary = {"summary_text"};
constexpr std::array<std::string_view, 1> kThought = {"reasoning_text"};

// Items one after the other; what belongs to one turn of the assistant becomes one message.
class ItemReader {
 public:
  explicit ItemReader(ordered_json& messages) : messages_(messages) {}

  void read(Fields& item) {
    const std::string type = item.string("type", 64).value_or("message");
    item.ignore({"id", "status", "phase"});
    if (item.error()) return;
    if (type == "message") return add_message(item);
    if (type == "reasoning") return add_reasoning(item);
    if (type == "function_call") return add_call(item);
    if (type == "function_call_output") return add_output(item);
    item.fail("type", "expected message, reasoning, function_call or function_call_output, got " +
                          io::describe_json(type));
  }

  void flush() {
    if (turn_.is_null()) return;
    messages_.push_back(std::move(turn_));
    turn_ = nullptr;
  }

 private:
  ordered_json& turn() {
    if (turn_.is_null()) turn_ = {{"role", "assistant"}};
    return turn_;
  }

  void add_message(Fields& item) {
    const std::string role = item.string("role", 64).value_or("");
    if (role != "user" && role != "assistant" && role != "system" && role != "developer")
      return item.fail(
          "role", "expected user, assistant, system or developer, got " + io::describe_json(role));
    ordered_json content = text_content(item, "content", kText);
    if (content.is_null()) return item.fail("content", "expected a string or a list of parts");
    if (role == "assistant" && !turn_.contains("content") && !turn_.contains("tool_calls")) {
      turn()["content"] = std::move(content);
      return;
    }
    flush();
    if (role == "assistant")
      turn()["content"] = std::move(content);
    else
      messages_.push_back({{"role", role}, {"content", std::move(content)}});
  }

  // Parts of `key` put together.
  static std::string texts(Fields& item, const std::string& key,
                           std::span<const std::string_view> types) {
    const json* parts = item.array(key);
    std::string text;
    for (size_t i = 0; parts != nullptr && i < parts->size(); ++i) {
      Fields part((*parts)[i], element_path(item.path_of(key), i));
      text += part_text(part, types);
      if (!item.take(part)) break;
    }
    return text;
  }

  void add_reasoning(Fields& item) {
    const std::string summary = texts(item, "summary", kSummary);
    const std::string content = texts(item, "content", kThought);
    item.ignore({"encrypted_content"});
    if (!turn_.is_null() && (turn_.contains("content") || turn_.contains("tool_calls"))) flush();
    const std::string& text = content.empty() ? summary : content;
    if (text.empty()) return;
    ordered_json& reasoning = turn()["reasoning"];
    if (reasoning.is_null()) reasoning = "";
    reasoning.get_ref<std::string&>() += text;
  }

  void add_call(Fields& item) {
    const auto id = item.string("call_id", 4096);
    const auto name = item.string("name", 4096);
    const auto arguments = item.string("arguments", kMaxBodyBytes);
    if (!id) item.fail("call_id", "expected a string, got none");
    if (!name) item.fail("name", "expected a string, got none");
    if (!arguments) item.fail("arguments", "expected a string, got none");
    if (item.error()) return;
    turn()["tool_calls"].push_back({{"id", *id},
                                    {"type", "function"},
                                    {"function", {{"name", *name}, {"arguments", *arguments}}}});
  }

  void add_output(Fields& item) {
    flush();
    const auto id = item.string("call_id", 4096);
    if (!id) item.fail("call_id", "expected the call_id of a function_call, got none");
    ordered_json output = text_content(item, "output", kText);
    if (output.is_null()) item.fail("output", "expected a string or a list of parts");
    messages_.push_back(
        {{"role", "tool"}, {"tool_call_id", id.value_or("")}, {"content", std::move(output)}});
  }

  ordered_json& messages_;
  ordered_json turn_;  // the assistant's, while it is put together
};

}  // namespace

void add_item_messages(Fields& fields, const ordered_json& items, size_t num_earlier,
                       ordered_json& messages) {
  ItemReader reader(messages);
  for (size_t i = 0; i < items.size(); ++i) {
    const json item = items[i];
    Fields inner(item,
                 i < num_earlier ? "previous_response_id" : element_path("input", i - num_earlier));
    reader.read(inner);
    inner.finish();
    if (!fields.take(inner)) return;
  }
  reader.flush();
}

}  // namespace tandem::server
