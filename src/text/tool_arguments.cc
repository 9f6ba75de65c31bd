#include "text/tool_arguments.h"

#include <utility>

#include "text/argument_value.h"

namespace tandem::text {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

}  // namespace

ToolArguments::ToolArguments(SchemaNode schema) {
  frames_.push_back({true, 0, std::move(schema)});
}

size_t ToolArguments::push_text(std::string_view text, std::string& out) {
  size_t used = 0;
  while (used < text.size() && !done()) {
    if (state_ == State::kString || state_ == State::kQuotedKey) {
      const std::string_view rest = text.substr(used);
      if (state_ == State::kString && streams_) {
        append_json_escaped(out, rest);
      } else {
        buffer_ += rest;
      }
      return text.size();
    }
    push_char(text[used++], out);
  }
  return used;
}

void ToolArguments::push_char(char c, std::string& out) {
  switch (state_) {
    case State::kKey:
      return key_char(c, out);
    case State::kValue:
      return value_char(c, out);
    case State::kBare:
      if (c != ',' && c != '}' && c != ']') {
        buffer_ += c;
        return;
      }
      end_bare(out);
      return delimiter(c, out);
    case State::kAfter:
      return delimiter(c, out);
    case State::kQuotedKey:
    case State::kString:
      return;  // push_text takes these whole
  }
}

void ToolArguments::key_char(char c, std::string& out) {
  if (c == ':') return end_key(out);
  if (c == '}') {
    drop_key();  // a key without a value
    return close(out);
  }
  if (c == ',') {
    drop_key();
  } else if (!key_quoted_ || !is_space(c)) {
    buffer_ += c;
  }
}

void ToolArguments::drop_key() {
  buffer_.clear();
  key_quoted_ = false;
}

void ToolArguments::end_key(std::string& out) {
  std::string_view key = key_quoted_ ? std::string_view(buffer_) : trim_spaces(buffer_);
  if (!key_quoted_ && key.size() >= 2 && key.front() == '"' && key.back() == '"')
    key = key.substr(1, key.size() - 2);
  Frame& frame = frames_.back();
  if (frame.num_values++ > 0) out += ", ";
  out += '"';
  append_json_escaped(out, key);
  out += "\": ";
  value_schema_ = frame.schema.property(std::string(key));
  value_types_ = value_schema_.types();
  drop_key();
  state_ = State::kValue;
}

// In a list the separator comes with the element, so that a list may end after a comma.
void ToolArguments::begin_value(std::string& out) {
  Frame& frame = frames_.back();
  if (frame.is_object) return;
  value_schema_ = frame.schema.item(frame.num_values);
  if (frame.num_values++ > 0) out += ", ";
  value_types_ = value_schema_.types();
}

void ToolArguments::value_char(char c, std::string& out) {
  if (is_space(c)) return;
  const bool in_list = !frames_.back().is_object;
  if (c == ']' && in_list) return close(out);
  if (c == ',' && in_list) return;  // an element left out
  if ((c == '{' || c == '[') && frames_.size() < kMaxDepth) {
    begin_value(out);
    return open(c == '{', out);
  }
  begin_value(out);
  state_ = State::kBare;
  push_char(c, out);
}

void ToolArguments::open(bool is_object, std::string& out) {
  out += is_object ? '{' : '[';
  frames_.push_back({is_object, 0, value_schema_});
  state_ = is_object ? State::kKey : State::kValue;
}

void ToolArguments::close(std::string& out) {
  out += frames_.back().is_object ? '}' : ']';
  frames_.pop_back();
  state_ = State::kAfter;
}

// After a value: a comma goes on, a bracket of either kind closes what is open.
void ToolArguments::delimiter(char c, std::string& out) {
  if (c == ',') {
    state_ = frames_.back().is_object ? State::kKey : State::kValue;
  } else if (c == '}' || c == ']') {
    close(out);
  }
}

void ToolArguments::end_bare(std::string& out) {
  out += convert_bare_value(buffer_, value_types_);
  buffer_.clear();
  state_ = State::kAfter;
}

void ToolArguments::push_quote(std::string& out) {
  switch (state_) {
    case State::kKey:
      state_ = State::kQuotedKey;
      buffer_.clear();
      key_quoted_ = true;
      return;
    case State::kQuotedKey:
      state_ = State::kKey;
      return;
    case State::kValue:
      begin_value(out);
      state_ = State::kString;
      streams_ = stays_string(value_types_);
      if (streams_) out += '"';
      return;
    case State::kString:
      return end_string(out);
    case State::kBare:
    case State::kAfter:
      return;  // a stray quote
  }
}

void ToolArguments::end_string(std::string& out) {
  out += streams_ ? "\"" : convert_quoted_value(buffer_, value_types_);
  buffer_.clear();
  state_ = State::kAfter;
}

void ToolArguments::finish(std::string& out) {
  if (done()) return;
  if (state_ == State::kString) end_string(out);
  if (state_ == State::kBare) end_bare(out);
  if (state_ == State::kValue && frames_.back().is_object) out += "null";
  while (!done()) close(out);
}

}  // namespace tandem::text
