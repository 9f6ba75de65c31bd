// Splits the ids of an answer into reasoning, content and tool calls. Works on ids, so that the
// result does not depend on how they are grouped into steps.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/detokenizer.h"
#include "text/tool_arguments.h"
#include "text/tool_schema.h"

namespace tandem::text {

struct OutputEvent {
  enum class Kind {
    kReasoning,      // text
    kContent,        // text
    kToolCallBegin,  // call_index, call_id, call_name
    kToolArguments,  // call_index, text: the next part of the arguments' JSON
    kToolCallEnd,    // call_index
  };
  Kind kind = Kind::kContent;
  std::string text;
  int32_t call_index = -1;
  std::string call_id;
  std::string call_name;

  bool operator==(const OutputEvent&) const = default;
};

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // valid JSON once finished
  bool finished = false;

  bool operator==(const ToolCall&) const = default;
};

// The whole answer: all events put together.
struct OutputMessage {
  std::string reasoning;
  std::string content;
  std::vector<ToolCall> tool_calls;

  void add(const OutputEvent& event);
  bool has_finished_call() const;  // then finish_reason is tool_calls
  bool operator==(const OutputMessage&) const = default;
};

struct OutputParserOptions {
  bool parse_reasoning = true;
  bool parse_tools = true;
  bool skip_special_tokens = true;
  // <turn|>, <eos> and <|tool_response> end the answer; off when a request ignores them.
  bool end_tokens_end = true;
  // An answer that does not begin with <|channel> is kept back until <channel|> tells that it was
  // reasoning, or something else tells that it was content. For requests with thinking on. Without
  // it only the words `thought\n` at the start do that, and a stray <channel|> is dropped.
  bool hold_untagged_reasoning = false;
  std::string call_id_prefix = "call_";  // ids are the prefix and the call's index
  std::shared_ptr<const ToolSchemas> tools;
};

class OutputParser {
 public:
  // The tokenizer must outlive this object. `prompt_ids` tell whether the answer begins inside a
  // thought block that the prompt opened.
  OutputParser(const Tokenizer& tokenizer, OutputParserOptions options,
               std::span<const int32_t> prompt_ids = {});

  std::vector<OutputEvent> push(std::span<const int32_t> ids);
  // The end of the answer, for whatever reason. Ends an open call.
  std::vector<OutputEvent> finish();

  bool ended() const { return state_ == State::kEnded; }  // later ids are dropped
  bool in_reasoning() const {
    return state_ == State::kReasoning || state_ == State::kReasoningHeader;
  }

 private:
  enum class State {
    kStart,  // nothing tells yet whether this is reasoning
    kContent,
    kReasoningHeader,  // after <|channel>: the line `thought` is not part of the reasoning
    kReasoning,
    kToolHead,  // from <|tool_call>, or the end of a call's arguments, to the next brace
    kToolArguments,
    kEnded,
  };
  struct Marks {
    int32_t channel_begin, channel_end, call_begin, call_end, quote, turn_end, eos, response;
  };

  void open_prompt(std::span<const int32_t> prompt_ids);
  void push_id(int32_t id);
  bool push_mark(int32_t id);
  void push_text(std::string_view text);
  void start_text(std::string_view text);
  void header_text(std::string_view text);
  void head_text(std::string_view text);
  void arguments_text(std::string_view text);
  void begin_call(std::string_view name);
  void leave_state();
  void emit(OutputEvent::Kind kind, std::string_view text);
  bool is_end(int32_t id) const;

  Detokenizer detokenizer_;
  OutputParserOptions options_;
  Marks marks_;
  State state_ = State::kStart;
  std::string buffer_;  // kStart, kReasoningHeader, kToolHead: text not decided yet
  int32_t call_index_ = -1;
  bool call_seen_in_block_ = false;
  std::optional<ToolArguments> arguments_;
  std::vector<OutputEvent> events_;
};

// All events of a whole answer put together.
OutputMessage parse_output(const Tokenizer& tokenizer, const OutputParserOptions& options,
                           std::span<const int32_t> prompt_ids, std::span<const int32_t> ids);

}  // namespace tandem::text
