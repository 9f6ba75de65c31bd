#include "server/messages_format.h"

#include <nlohmann/json.hpp>

#include "server/json_text.h"

namespace tandem::server {
namespace {

using nlohmann::ordered_json;
using Kind = text::OutputEvent::Kind;

// Thoughts are signed where they are sealed; here they are plain text.
constexpr const char* kSignature = "unsigned";

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 500:
      return "api_error";
    case 503:
      return "overloaded_error";
    default:
      return "invalid_request_error";
  }
}

ordered_json error_body(const ApiError& error) {
  ordered_json body = {{"type", "error"},
                       {"error", {{"type", error_type(error.status)}, {"message", error.message}}}};
  if (error.code == kNoThreads) body["error"]["details"] = {{"error_code", kNoThreads}};
  return body;
}

ordered_json usage_json(const Usage& usage) {
  return {{"input_tokens", usage.num_prompt_tokens}, {"output_tokens", usage.num_output_tokens}};
}

const char* stop_reason(const ChoicePart& part) {
  if (part.stop_text) return "stop_sequence";
  if (part.finish_reason == "length") return "max_tokens";
  return part.finish_reason == "tool_calls" ? "tool_use" : "end_turn";
}

ordered_json stop_sequence(const ChoicePart& part) {
  return part.stop_text ? ordered_json(*part.stop_text) : ordered_json();
}

// The input of a call as a value. It is valid JSON unless the client asked for broken answers.
ordered_json input_json(const std::string& arguments) {
  auto parsed = ordered_json::parse(arguments, nullptr, /*allow_exceptions=*/false);
  return parsed.is_object() ? parsed : ordered_json::object();
}

class MessagesFormat : public ReplyFormat {
 public:
  explicit MessagesFormat(ReplyNames names) : names_(std::move(names)) {}

  std::string begin_choice(int64_t, const Usage& usage) override {
    ordered_json message = envelope();
    message["content"] = ordered_json::array();
    message["stop_reason"] = nullptr;
    message["stop_sequence"] = nullptr;
    message["usage"] = usage_json(usage);
    return sse_event({{"type", "message_start"}, {"message", std::move(message)}});
  }

  std::string chunk(const ChoicePart& part, const Usage&) override {
    std::string events;
    for (const AnswerPiece& piece : part.pieces) events += piece_events(piece);
    if (part.finish_reason) {
      stop_reason_ = stop_reason(part);
      stop_text_ = part.stop_text;
    }
    return events;
  }

  std::string end_stream(const Usage& usage, const speculation::AcceptanceStats*) override {
    std::string events = close_block();
    const ordered_json text = stop_text_ ? ordered_json(*stop_text_) : ordered_json();
    events += sse_event({{"type", "message_delta"},
                         {"delta", {{"stop_reason", stop_reason_}, {"stop_sequence", text}}},
                         {"usage", usage_json(usage)}});
    return events + sse_event({{"type", "message_stop"}});
  }

  std::string stream_error(const ApiError& error) override { return sse_event(error_body(error)); }

  Reply error(const ApiError& error) const override { return messages_error_reply(error); }

  std::string whole(const std::vector<ChoicePart>& choices, const Usage& usage,
                    const speculation::AcceptanceStats*) override {
    const ChoicePart& part = choices.front();
    ordered_json message = envelope();
    message["content"] = content_json(part);
    message["stop_reason"] = stop_reason(part);
    message["stop_sequence"] = stop_sequence(part);
    message["usage"] = usage_json(usage);
    return json_text(message);
  }

 private:
  enum class Block { kNone, kThinking, kText, kTool };

  // Each event is named after its type.
  static std::string sse_event(const ordered_json& event) {
    return "event: " + event["type"].get<std::string>() + "\n" + server::sse_event(event);
  }

  ordered_json envelope() const {
    return {{"id", names_.id}, {"type", "message"}, {"role", "assistant"}, {"model", names_.model}};
  }

  // Each line looks at what the one before it has left open.
  std::string piece_events(const AnswerPiece& piece) {
    std::string events;
    switch (piece.kind) {
      case Kind::kReasoning:
        events +=
            open(Block::kThinking, {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
        events += delta({{"type", "thinking_delta"}, {"thinking", piece.text}});
        break;
      case Kind::kContent:
        events += open(Block::kText, {{"type", "text"}, {"text", ""}});
        events += delta({{"type", "text_delta"}, {"text", piece.text}});
        break;
      case Kind::kToolCallBegin:
        events += close_block();
        events += open(Block::kTool, {{"type", "tool_use"},
                                      {"id", piece.call_id},
                                      {"name", piece.call_name},
                                      {"input", ordered_json::object()}});
        break;
      case Kind::kToolArguments:
        events += delta({{"type", "input_json_delta"}, {"partial_json", piece.text}});
        break;
      case Kind::kToolCallEnd:
        events += close_block();
        break;
    }
    return events;
  }

  // Nothing when such a block is open.
  std::string open(Block kind, ordered_json block) {
    if (block_ == kind) return {};
    std::string events = close_block();
    block_ = kind;
    events += sse_event(
        {{"type", "content_block_start"}, {"index", index_}, {"content_block", std::move(block)}});
    return events;
  }

  std::string delta(ordered_json value) const {
    return sse_event(
        {{"type", "content_block_delta"}, {"index", index_}, {"delta", std::move(value)}});
  }

  std::string close_block() {
    if (block_ == Block::kNone) return {};
    std::string events;
    if (block_ == Block::kThinking)
      events = delta({{"type", "signature_delta"}, {"signature", kSignature}});
    block_ = Block::kNone;
    return events + sse_event({{"type", "content_block_stop"}, {"index", index_++}});
  }

  static ordered_json content_json(const ChoicePart& part) {
    ordered_json content = ordered_json::array();
    std::string arguments;
    const auto append = [&content](const char* type, const std::string& text) {
      if (content.empty() || content.back()["type"] != type)
        content.push_back({{"type", type}, {std::string_view(type), ""}});
      content.back()[type].get_ref<std::string&>() += text;
    };
    for (const AnswerPiece& piece : part.pieces) {
      if (piece.kind == Kind::kReasoning) append("thinking", piece.text);
      if (piece.kind == Kind::kContent) append("text", piece.text);
      if (piece.kind == Kind::kToolArguments) arguments += piece.text;
      if (piece.kind == Kind::kToolCallBegin)
        content.push_back({{"type", "tool_use"}, {"id", piece.call_id}, {"name", piece.call_name}});
      if (piece.kind != Kind::kToolCallEnd) continue;
      content.back()["input"] = input_json(std::exchange(arguments, {}));
    }
    for (ordered_json& block : content)
      if (block["type"] == "thinking") block["signature"] = kSignature;
    return content;
  }

  ReplyNames names_;
  Block block_ = Block::kNone;
  int64_t index_ = 0;
  std::string stop_reason_ = "end_turn";
  std::optional<std::string> stop_text_;
};

}  // namespace

std::string messages_error_json(const ApiError& error) {
  return json_text(error_body(error));
}

Reply messages_error_reply(const ApiError& error) {
  Reply reply = error_reply(error);
  reply.body = messages_error_json(error);
  return reply;
}

std::unique_ptr<ReplyFormat> make_messages_format(ReplyNames names) {
  return std::make_unique<MessagesFormat>(std::move(names));
}

}  // namespace tandem::server
