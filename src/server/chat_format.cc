// chat.completion and chat.completion.chunk.
#include <nlohmann/json.hpp>

#include "server/format.h"

namespace tandem::server {
namespace {

using nlohmann::ordered_json;
using Kind = text::OutputEvent::Kind;

void add_text(ordered_json& object, const char* key, const std::string& text) {
  auto& value = object[key];
  if (value.is_null()) value = "";
  value.get_ref<std::string&>() += text;
}

// One entry per call in a chunk: id and name the first time, then more of the arguments.
ordered_json& call_entry(ordered_json& delta, int32_t index) {
  ordered_json& calls = delta["tool_calls"];
  for (ordered_json& call : calls)
    if (call["index"] == index) return call;
  calls.push_back({{"index", index}});
  return calls.back();
}

void add_piece(ordered_json& delta, const AnswerPiece& piece) {
  switch (piece.kind) {
    case Kind::kReasoning:
      return add_text(delta, "reasoning", piece.text);
    case Kind::kContent:
      return add_text(delta, "content", piece.text);
    case Kind::kToolCallBegin: {
      ordered_json& call = call_entry(delta, piece.call_index);
      call["id"] = piece.call_id;
      call["type"] = "function";
      call["function"] = {{"name", piece.call_name}, {"arguments", ""}};
      return;
    }
    case Kind::kToolArguments:
      return add_text(call_entry(delta, piece.call_index)["function"], "arguments", piece.text);
    case Kind::kToolCallEnd:
      return;
  }
}

ordered_json bytes_json(const std::string& bytes) {
  ordered_json result = ordered_json::array();
  for (const char c : bytes) result.push_back(static_cast<unsigned char>(c));
  return result;
}

class ChatFormat : public OpenAiFormat {
 public:
  using OpenAiFormat::OpenAiFormat;

  std::string begin_choice(int64_t index, const Usage& usage) override {
    return chunk_of({{"role", "assistant"}, {"content", ""}}, {.index = index}, usage);
  }

  std::string chunk(const ChoicePart& part, const Usage& usage) override {
    ordered_json delta = ordered_json::object();
    for (const AnswerPiece& piece : part.pieces) add_piece(delta, piece);
    return chunk_of(std::move(delta), part, usage);
  }

 protected:
  const char* object_name(bool chunk) const override {
    return chunk ? "chat.completion.chunk" : "chat.completion";
  }

  void add_fields(const std::vector<ChoicePart>& choices, ordered_json& reply) const override {
    if (extras_.prompt_logprobs) reply["prompt_logprobs"] = prompt_logprobs_json(choices.front());
  }

  ordered_json choice_json(const ChoicePart& part) const override {
    text::OutputMessage message;
    for (const AnswerPiece& piece : part.pieces) message.add(piece);
    ordered_json calls = ordered_json::array();
    for (const text::ToolCall& call : message.tool_calls)
      calls.push_back({{"id", call.id},
                       {"type", "function"},
                       {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    ordered_json json = {{"role", "assistant"}, {"content", message.content}, {"refusal", nullptr}};
    if (message.content.empty() && !calls.empty()) json["content"] = nullptr;
    json["reasoning"] =
        message.reasoning.empty() ? ordered_json() : ordered_json(message.reasoning);
    if (!calls.empty()) json["tool_calls"] = calls;
    ordered_json choice = {{"index", part.index}, {"message", json}};
    choice["logprobs"] = logprobs_json(part);
    add_end(choice, part);
    return choice;
  }

 private:
  std::string chunk_of(ordered_json delta, const ChoicePart& part, const Usage& usage) const {
    ordered_json choice = {{"index", part.index}, {"delta", std::move(delta)}};
    choice["logprobs"] = part.tokens.empty() ? ordered_json() : logprobs_json(part);
    add_end(choice, part);
    return choice_event(std::move(choice), usage);
  }

  ordered_json entry(int32_t id, float logprob) const {
    const TokenText text = token_text(tokenizer_, id);
    return {{"token", token_name(id)}, {"logprob", logprob}, {"bytes", bytes_json(text.bytes)}};
  }

  ordered_json logprobs_json(const ChoicePart& part) const {
    if (!extras_.logprobs) return nullptr;
    ordered_json content = ordered_json::array();
    for (const AnswerToken& token : part.tokens) {
      ordered_json item = entry(token.choice.token, token.choice.logprob);
      item["top_logprobs"] = ordered_json::array();
      for (const sampling::TokenLogprob& top : token.choice.top)
        item["top_logprobs"].push_back(entry(top.token, top.logprob));
      content.push_back(std::move(item));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }
};

}  // namespace

std::unique_ptr<ReplyFormat> make_chat_format(const text::Tokenizer& tokenizer, ReplyNames names,
                                              ReplyExtras extras) {
  return std::make_unique<ChatFormat>(tokenizer, std::move(names), extras);
}

}  // namespace tandem::server
