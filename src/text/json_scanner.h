// A pull scanner over JSON text in memory, for files too large for a document tree. It never
// recurses, never reads past the end and copies only strings that hold escapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::text {

class JsonScanner {
 public:
  static constexpr int kMaxDepth = 64;

  explicit JsonScanner(std::string_view text, size_t offset = 0) : text_(text), at_(offset) {}

  // The next character that is not white space, or 0 at the end. Consumes only white space.
  char peek();
  bool consume(char expected);

  // A string; `value` points into the text, or into `scratch` when the string holds escapes.
  bool read_string(std::string& scratch, std::string_view& value);
  bool read_integer(int64_t& value);
  // Any value, passed over; `span` is its text. Nesting beyond kMaxDepth fails.
  bool skip_value(std::string_view& span);

  // Calls member(key) after each `key:`; the callback must consume the value and return success.
  template <typename Member>
  bool read_object(Member&& member);
  // Calls element() before each element, which it must consume.
  template <typename Element>
  bool read_array(Element&& element);

  bool fail(std::string_view expected);  // records the first failure; returns false
  bool failed() const { return !error_.empty(); }
  const std::string& error() const { return error_; }  // "byte N: expected X, got Y"
  size_t offset() const { return at_; }

 private:
  bool read_escape(std::string& out);
  bool read_hex4(uint32_t& value);
  bool skip_string();
  bool skip_scalar();

  std::string_view text_;
  size_t at_ = 0;
  std::string error_;
};

template <typename Member>
bool JsonScanner::read_object(Member&& member) {
  if (!consume('{')) return false;
  if (peek() == '}') return consume('}');
  std::string scratch;
  while (true) {
    std::string_view key;
    if (peek() != '"') return fail("a key in quotes");
    if (!read_string(scratch, key) || !consume(':') || !member(key)) return false;
    if (peek() == '}') return consume('}');
    if (!consume(',')) return false;
  }
}

template <typename Element>
bool JsonScanner::read_array(Element&& element) {
  if (!consume('[')) return false;
  if (peek() == ']') return consume(']');
  while (true) {
    if (!element()) return false;
    if (peek() == ']') return consume(']');
    if (!consume(',')) return false;
  }
}

}  // namespace tandem::text
