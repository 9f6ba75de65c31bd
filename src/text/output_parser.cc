#include "text/output_parser.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "text/argument_value.h"

namespace tandem::text {
namespace {

constexpr std::string_view kThoughtLine = "thought\n";
constexpr std::string_view kCallWord = "call:";

using Kind = OutputEvent::Kind;

}  // namespace

void OutputMessage::add(const OutputEvent& event) {
  switch (event.kind) {
    case Kind::kReasoning:
      reasoning += event.text;
      return;
    case Kind::kContent:
      content += event.text;
      return;
    case Kind::kToolCallBegin:
      tool_calls.push_back({event.call_id, event.call_name, "", false});
      return;
    case Kind::kToolArguments:
      tool_calls.back().arguments += event.text;
      return;
    case Kind::kToolCallEnd:
      tool_calls.back().finished = true;
      return;
  }
}

bool OutputMessage::has_finished_call() const {
  return std::any_of(tool_calls.begin(), tool_calls.end(),
                     [](const ToolCall& call) { return call.finished; });
}

OutputParser::OutputParser(const Tokenizer& tokenizer, OutputParserOptions options,
                           std::span<const int32_t> prompt_ids)
    : detokenizer_(tokenizer, options.skip_special_tokens), options_(std::move(options)) {
  // A token that the vocabulary lacks has id -1 and is never met.
  const auto id_of = [&](const char* token) { return tokenizer.token_to_id(token).value_or(-1); };
  marks_ = {id_of("<|channel>"),   id_of("<channel|>"),      id_of("<|tool_call>"),
            id_of("<tool_call|>"), id_of("<|\"|>"),          id_of("<turn|>"),
            id_of("<eos>"),        id_of("<|tool_response>")};
  if (!options_.parse_reasoning) {
    marks_.channel_begin = marks_.channel_end = -1;
    state_ = State::kContent;
  }
  if (!options_.parse_tools) marks_.call_begin = marks_.call_end = marks_.quote = -1;
  open_prompt(prompt_ids);
}

// Reads the tail of the prompt as if it had been generated, when it ends inside a thought block.
void OutputParser::open_prompt(std::span<const int32_t> prompt_ids) {
  for (size_t i = prompt_ids.size(); i-- > 0;) {
    const int32_t id = prompt_ids[i];
    if (id < 0) continue;
    if (id == marks_.channel_end || is_end(id)) return;
    if (id != marks_.channel_begin) continue;
    push(prompt_ids.subspan(i));
    return;
  }
}

bool OutputParser::is_end(int32_t id) const {
  return id >= 0 && (id == marks_.turn_end || id == marks_.eos || id == marks_.response);
}

std::vector<OutputEvent> OutputParser::push(std::span<const int32_t> ids) {
  for (const int32_t id : ids) push_id(id);
  return std::exchange(events_, {});
}

std::vector<OutputEvent> OutputParser::finish() {
  // Half a name, cut off by a length limit, is no call.
  if (state_ == State::kToolHead) buffer_.clear();
  if (state_ != State::kEnded) leave_state();
  state_ = State::kEnded;
  return std::exchange(events_, {});
}

void OutputParser::push_id(int32_t id) {
  if (state_ == State::kEnded || id < 0) return;
  if (push_mark(id)) return;
  const std::string text = detokenizer_.push(id);
  if (!text.empty()) push_text(text);
}

// True if the id changed the state instead of giving text.
bool OutputParser::push_mark(int32_t id) {
  if (is_end(id) && options_.end_tokens_end) {
    leave_state();
    state_ = State::kEnded;
  } else if (id == marks_.channel_begin) {
    leave_state();
    state_ = State::kReasoningHeader;
  } else if (id == marks_.call_begin) {
    leave_state();
    state_ = State::kToolHead;
    call_seen_in_block_ = false;
  } else if (id == marks_.channel_end) {
    push_text(detokenizer_.finish());
    if (state_ == State::kStart) {
      emit(Kind::kReasoning, std::exchange(buffer_, {}));
      state_ = State::kContent;
    } else if (state_ == State::kReasoning || state_ == State::kReasoningHeader) {
      leave_state();
      state_ = State::kContent;
    }
  } else if (id == marks_.call_end) {
    push_text(detokenizer_.finish());
    if (state_ == State::kToolHead || state_ == State::kToolArguments) {
      leave_state();
      state_ = State::kContent;
    }
  } else if (id == marks_.quote && (state_ == State::kToolHead || arguments_)) {
    push_text(detokenizer_.finish());
    std::string json;
    if (arguments_) arguments_->push_quote(json);
    emit(Kind::kToolArguments, json);
  } else {
    return false;
  }
  return true;
}

// Writes what the state still holds, as what it is when nothing follows.
void OutputParser::leave_state() {
  push_text(detokenizer_.finish());
  std::string held = std::exchange(buffer_, {});
  if (state_ == State::kStart) {
    emit(Kind::kContent, held);
  } else if (state_ == State::kReasoningHeader) {
    // An unfinished `thought` is the header of nothing.
    if (!kThoughtLine.starts_with(held)) emit(Kind::kReasoning, held);
  } else if (state_ == State::kToolHead) {
    // A call that ends before its brace has no arguments.
    const std::string_view name = trim_spaces(held);
    if (name.starts_with(kCallWord) && name.size() > kCallWord.size()) begin_call(held);
  }
  if (arguments_) {
    std::string json;
    arguments_->finish(json);
    emit(Kind::kToolArguments, json);
    events_.push_back({Kind::kToolCallEnd, "", call_index_, "", ""});
    arguments_.reset();
  }
}

void OutputParser::push_text(std::string_view text) {
  if (text.empty()) return;
  switch (state_) {
    case State::kStart:
      return start_text(text);
    case State::kContent:
      return emit(Kind::kContent, text);
    case State::kReasoningHeader:
      return header_text(text);
    case State::kReasoning:
      return emit(Kind::kReasoning, text);
    case State::kToolHead:
      return head_text(text);
    case State::kToolArguments:
      return arguments_text(text);
    case State::kEnded:
      return;
  }
}

void OutputParser::start_text(std::string_view text) {
  buffer_ += text;
  if (buffer_.starts_with(kThoughtLine)) {
    state_ = State::kReasoning;
    emit(Kind::kReasoning, std::exchange(buffer_, {}).substr(kThoughtLine.size()));
  } else if (!kThoughtLine.starts_with(buffer_) && !options_.hold_untagged_reasoning) {
    state_ = State::kContent;
    emit(Kind::kContent, std::exchange(buffer_, {}));
  }
}

void OutputParser::header_text(std::string_view text) {
  buffer_ += text;
  if (kThoughtLine.starts_with(buffer_) && buffer_.size() < kThoughtLine.size()) return;
  const std::string held = std::exchange(buffer_, {});
  const size_t header = held.starts_with(kThoughtLine) ? kThoughtLine.size() : 0;
  state_ = State::kReasoning;
  emit(Kind::kReasoning, std::string_view(held).substr(header));
}

void OutputParser::head_text(std::string_view text) {
  const size_t brace = text.find('{');
  buffer_ += text.substr(0, brace);
  if (brace == std::string_view::npos) return;
  const std::string head = std::exchange(buffer_, {});
  // Between two calls of one block only a new `call:` opens another; the first may lack the word.
  if (!call_seen_in_block_ || head.find(kCallWord) != std::string::npos) begin_call(head);
  push_text(text.substr(brace + 1));
}

void OutputParser::begin_call(std::string_view head) {
  const size_t word = head.find(kCallWord);
  const std::string_view name =
      trim_spaces(word == std::string_view::npos ? head : head.substr(word + kCallWord.size()));
  if (name.empty()) return;
  ++call_index_;
  call_seen_in_block_ = true;
  state_ = State::kToolArguments;
  OutputEvent event{Kind::kToolCallBegin, "", call_index_, "", std::string(name)};
  event.call_id = options_.call_id_prefix + std::to_string(call_index_);
  const SchemaNode schema =
      options_.tools ? options_.tools->parameters(event.call_name) : SchemaNode();
  events_.push_back(std::move(event));
  arguments_.emplace(schema);
  emit(Kind::kToolArguments, "{");
}

void OutputParser::arguments_text(std::string_view text) {
  TANDEM_CHECK(arguments_.has_value());
  std::string json;
  const size_t used = arguments_->push_text(text, json);
  emit(Kind::kToolArguments, json);
  if (!arguments_->done()) return;
  leave_state();
  state_ = State::kToolHead;
  push_text(text.substr(used));
}

// Text of one kind that comes in one push is one event.
void OutputParser::emit(Kind kind, std::string_view text) {
  if (text.empty()) return;
  const int32_t index = kind == Kind::kToolArguments ? call_index_ : -1;
  if (!events_.empty() && events_.back().kind == kind && events_.back().call_index == index) {
    events_.back().text += text;
  } else {
    events_.push_back({kind, std::string(text), index, "", ""});
  }
}

OutputMessage parse_output(const Tokenizer& tokenizer, const OutputParserOptions& options,
                           std::span<const int32_t> prompt_ids, std::span<const int32_t> ids) {
  OutputMessage message;
  OutputParser parser(tokenizer, options, prompt_ids);
  for (const OutputEvent& event : parser.push(ids)) message.add(event);
  for (const OutputEvent& event : parser.finish()) message.add(event);
  return message;
}

}  // namespace tandem::text
