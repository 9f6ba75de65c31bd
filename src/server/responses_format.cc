#include "server/responses_format.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "server/json_text.h"

namespace tandem::server {
namespace {

using nlohmann::ordered_json;
using Kind = text::OutputEvent::Kind;

// The answer as items, one open at a time, with the events that tell of each change.
class ResponsesFormat : public ReplyFormat {
 public:
  ResponsesFormat(ReplyNames names, ordered_json reply, std::shared_ptr<const ordered_json> input,
                  ResponseStore* store)
      : id_(std::move(names.id)),
        reply_(std::move(reply)),
        input_(std::move(input)),
        store_(store) {
    reply_["id"] = id_;
    reply_["created_at"] = names.created;
    reply_["model"] = names.model;
  }

  std::string begin_choice(int64_t, const Usage&) override {
    streams_ = true;
    event("response.created", {{"response", reply_}});
    event("response.in_progress", {{"response", reply_}});
    return take_events();
  }

  std::string chunk(const ChoicePart& part, const Usage&) override {
    add(part);
    return take_events();
  }

  std::string end_stream(const Usage& usage, const speculation::AcceptanceStats*) override {
    finish(usage);
    event(incomplete_ ? "response.incomplete" : "response.completed", {{"response", reply_}});
    return take_events();
  }

  // Clients look for the message in one place or the other.
  std::string stream_error(const ApiError& error) override {
    const ordered_json inner = ordered_json::parse(error_json(error))["error"];
    reply_["status"] = "failed";
    reply_["error"] = {{"code", error.status == 429 ? "rate_limit_exceeded" : "server_error"},
                       {"message", error.message}};
    event("response.failed", {{"response", reply_}});
    event("error", {{"code", std::to_string(error.status)},
                    {"message", error.message},
                    {"param", nullptr},
                    {"error", inner}});
    return take_events();
  }

  std::string whole(const std::vector<ChoicePart>& choices, const Usage& usage,
                    const speculation::AcceptanceStats*) override {
    add(choices.front());
    finish(usage);
    return json_text(reply_);
  }

 private:
  void event(const char* type, const ordered_json& fields) {
    if (!streams_) return;
    ordered_json value = {{"type", type}, {"sequence_number", sequence_number_++}};
    value.update(fields);
    events_ += "event: " + std::string(type) + "\n" + sse_event(value);
  }

  std::string take_events() { return std::exchange(events_, {}); }

  void add(const ChoicePart& part) {
    incomplete_ = part.finish_reason == "length";
    for (const AnswerPiece& piece : part.pieces) {
      // A call that the end of the answer cut off is closed by the last piece.
      const bool last = &piece == &part.pieces.back();
      cut_ = incomplete_ && last && piece.kind == Kind::kToolCallEnd;
      add_piece(piece);
    }
    cut_ = incomplete_;
    if (part.finish_reason) close();
  }

  void add_piece(const AnswerPiece& piece) {
    switch (piece.kind) {
      case Kind::kReasoning:
        return add_text("reasoning", "reasoning_text", piece.text);
      case Kind::kContent:
        return add_text("message", "output_text", piece.text);
      case Kind::kToolCallBegin:
        close();
        return open({{"id", item_id("fc")},
                     {"type", "function_call"},
                     {"status", "in_progress"},
                     {"call_id", piece.call_id},
                     {"name", piece.call_name},
                     {"arguments", ""}});
      case Kind::kToolArguments:
        item_["arguments"].get_ref<std::string&>() += piece.text;
        return item_event("response.function_call_arguments.delta", {{"delta", piece.text}});
      case Kind::kToolCallEnd:
        return close();
    }
  }

  std::string item_id(const char* prefix) const {
    return fmt::format("{}_{}_{}", prefix, id_.substr(id_.find('_') + 1), reply_["output"].size());
  }

  // An event about the item that is open.
  void item_event(const char* type, const ordered_json& fields) {
    ordered_json value = {{"item_id", item_["id"]}, {"output_index", reply_["output"].size()}};
    value.update(fields);
    event(type, value);
  }

  void open(ordered_json item) {
    item_ = std::move(item);
    event("response.output_item.added",
          {{"output_index", reply_["output"].size()}, {"item", item_}});
  }

  static ordered_json part_json(const std::string& type, const std::string& text) {
    ordered_json part = {{"type", type}, {"text", text}};
    if (type == "output_text") {
      part["annotations"] = ordered_json::array();
      part["logprobs"] = ordered_json::array();
    }
    return part;
  }

  void add_text(const char* item_type, const char* part_type, const std::string& text) {
    if (item_.is_null() || item_["type"] != item_type) {
      close();
      ordered_json item = {{"id", item_id(item_type[0] == 'm' ? "msg" : "rs")},
                           {"type", item_type},
                           {"status", "in_progress"}};
      if (item_type[0] == 'm')
        item["role"] = "assistant";
      else
        item["summary"] = ordered_json::array();
      item["content"] = ordered_json::array();
      open(std::move(item));
      part_type_ = part_type;
      item_event("response.content_part.added",
                 {{"content_index", 0}, {"part", part_json(part_type_, "")}});
    }
    text_ += text;
    ordered_json fields = {{"content_index", 0}, {"delta", text}};
    if (part_type_ == "output_text") fields["logprobs"] = ordered_json::array();
    item_event(("response." + part_type_ + ".delta").c_str(), fields);
  }

  // Ends the item that is open.
  void close() {
    if (item_.is_null()) return;
    if (item_["type"] == "function_call") {
      item_event("response.function_call_arguments.done", {{"arguments", item_["arguments"]}});
    } else {
      ordered_json fields = {{"content_index", 0}, {"text", text_}};
      if (part_type_ == "output_text") fields["logprobs"] = ordered_json::array();
      item_event(("response." + part_type_ + ".done").c_str(), fields);
      item_["content"] = ordered_json::array({part_json(part_type_, text_)});
      item_event("response.content_part.done",
                 {{"content_index", 0}, {"part", item_["content"][0]}});
      text_.clear();
    }
    item_["status"] = cut_ ? "incomplete" : "completed";
    event("response.output_item.done",
          {{"output_index", reply_["output"].size()}, {"item", item_}});
    reply_["output"].push_back(std::exchange(item_, nullptr));
  }

  void finish(const Usage& usage) {
    reply_["status"] = incomplete_ ? "incomplete" : "completed";
    if (incomplete_)
      reply_["incomplete_details"] = {{"reason", "max_output_tokens"}};
    else
      reply_["completed_at"] = static_cast<int64_t>(std::time(nullptr));
    reply_["usage"] = {
        {"input_tokens", usage.num_prompt_tokens},
        {"input_tokens_details",
         {{"cached_tokens", usage.num_cached_tokens}, {"cache_write_tokens", 0}}},
        {"output_tokens", usage.num_output_tokens},
        {"output_tokens_details", {{"reasoning_tokens", usage.num_reasoning_tokens}}},
        {"total_tokens", usage.num_prompt_tokens + usage.num_output_tokens}};
    if (store_ == nullptr) return;
    ordered_json items = *input_;
    for (const ordered_json& item : reply_["output"]) items.push_back(item);
    if (!store_->put(id_, {json_text(reply_), json_text(items)})) reply_["store"] = false;
  }

  std::string id_;
  ordered_json reply_;
  std::shared_ptr<const ordered_json> input_;
  ResponseStore* store_;

  bool streams_ = false;
  int64_t sequence_number_ = 0;
  std::string events_;     // made, not taken yet
  ordered_json item_;      // the one that is open; null between two
  std::string part_type_;  // of its text
  std::string text_;       // so far
  bool cut_ = false;       // the next item to close was cut off
  bool incomplete_ = false;
};

}  // namespace

std::unique_ptr<ReplyFormat> make_responses_format(ReplyNames names,
                                                   const std::shared_ptr<ordered_json>& reply,
                                                   std::shared_ptr<const ordered_json> input,
                                                   ResponseStore* store) {
  return std::make_unique<ResponsesFormat>(std::move(names), std::move(*reply), std::move(input),
                                           store);
}

}  // namespace tandem::server
