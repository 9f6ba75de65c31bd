// Turns the family's argument syntax, {key:value,...} with strings between quote tokens, into JSON
// text while it is being generated.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tool_schema.h"

namespace tandem::text {

// Begins after the opening brace. Everything that is written is final: a bare value waits for its
// end, a string for nothing. What is written so far plus what finish() adds is always valid JSON.
class ToolArguments {
 public:
  // `schema` must outlive this object.
  explicit ToolArguments(SchemaNode schema);

  // Appends JSON to `out`. Returns how much of `text` belongs to the arguments: all of it, or the
  // part up to the brace that closes them.
  size_t push_text(std::string_view text, std::string& out);
  // The quote token itself; the same characters made of other tokens are ordinary text.
  void push_quote(std::string& out);
  // Ends whatever is open. An unterminated string keeps the text it has.
  void finish(std::string& out);

  bool done() const { return frames_.empty(); }

 private:
  enum class State {
    kKey,        // before or inside a key
    kQuotedKey,  // inside a key between quote tokens
    kValue,      // before a value
    kBare,       // inside a value without quotes
    kString,     // inside a string
    kAfter,      // after a value
  };
  struct Frame {
    bool is_object = true;
    size_t num_values = 0;
    SchemaNode schema;
  };

  void push_char(char c, std::string& out);
  void key_char(char c, std::string& out);
  void value_char(char c, std::string& out);
  void end_key(std::string& out);
  void drop_key();
  void begin_value(std::string& out);
  void end_string(std::string& out);
  void end_bare(std::string& out);
  void open(bool is_object, std::string& out);
  void close(std::string& out);
  void delimiter(char c, std::string& out);

  static constexpr size_t kMaxDepth = 64;

  State state_ = State::kKey;
  std::vector<Frame> frames_;  // open containers, outermost first
  std::string buffer_;         // the key, bare value or held-back string being read
  SchemaNode value_schema_;
  std::vector<std::string> value_types_;
  bool streams_ = false;     // the string being read is written as it comes
  bool key_quoted_ = false;  // the key being read stood between quote tokens: it is what it says
};

}  // namespace tandem::text
