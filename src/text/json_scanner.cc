#include "text/json_scanner.h"

#include <fmt/format.h>

#include <charconv>

#include "text/utf8.h"

namespace tandem::text {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

}  // namespace

char JsonScanner::peek() {
  while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool JsonScanner::consume(char expected) {
  if (peek() != expected || at_ >= text_.size()) return fail(fmt::format("'{}'", expected));
  ++at_;
  return true;
}

bool JsonScanner::fail(std::string_view expected) {
  if (!error_.empty()) return false;
  std::string got = "the end of the file";
  if (at_ < text_.size()) {
    const auto byte = static_cast<unsigned char>(text_[at_]);
    got = byte >= 0x20 && byte < 0x7F ? fmt::format("'{}'", text_[at_])
                                      : fmt::format("byte 0x{:02X}", byte);
  }
  error_ = fmt::format("byte {}: expected {}, got {}", at_, expected, got);
  return false;
}

bool JsonScanner::read_string(std::string& scratch, std::string_view& value) {
  if (!consume('"')) return false;
  const size_t start = at_;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '"') {
      value = text_.substr(start, at_ - start);
      ++at_;
      return true;
    }
    if (c == '\\') break;
    if (static_cast<unsigned char>(c) < 0x20) return fail("no control character in a string");
    ++at_;
  }
  scratch.assign(text_.substr(start, at_ - start));
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '"') {
      value = scratch;
      ++at_;
      return true;
    }
    if (static_cast<unsigned char>(c) < 0x20) return fail("no control character in a string");
    ++at_;
    if (c != '\\') {
      scratch.push_back(c);
    } else if (!read_escape(scratch)) {
      return false;
    }
  }
  return fail("a closing quote");
}

bool JsonScanner::read_escape(std::string& out) {
  constexpr std::string_view kNames = "\"\\/bfnrt";
  constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
  if (at_ >= text_.size()) return fail("an escape");
  const size_t known = kNames.find(text_[at_]);
  if (known != std::string_view::npos) {
    out.push_back(kValues[known]);
    ++at_;
    return true;
  }
  if (text_[at_] != 'u') return fail("an escape");
  ++at_;
  uint32_t scalar = 0;
  if (!read_hex4(scalar)) return false;
  if (scalar >= 0xDC00 && scalar <= 0xDFFF) return fail("no lone surrogate before this place");
  if (scalar >= 0xD800 && scalar <= 0xDBFF) {
    uint32_t low = 0;
    if (text_.substr(at_, 2) != "\\u") return fail("the second half of a surrogate pair");
    at_ += 2;
    if (!read_hex4(low)) return false;
    if (low < 0xDC00 || low > 0xDFFF) return fail("a low surrogate before this place");
    scalar = 0x10000 + ((scalar - 0xD800) << 10) + (low - 0xDC00);
  }
  append_scalar(out, scalar);
  return true;
}

bool JsonScanner::read_hex4(uint32_t& value) {
  if (at_ + 4 > text_.size()) return fail("four hexadecimal digits");
  const char* first = text_.data() + at_;
  const auto result = std::from_chars(first, first + 4, value, 16);
  if (result.ec != std::errc() || result.ptr != first + 4) return fail("four hexadecimal digits");
  at_ += 4;
  return true;
}

bool JsonScanner::read_integer(int64_t& value) {
  peek();
  const char* first = text_.data() + at_;
  const char* last = text_.data() + text_.size();
  const auto result = std::from_chars(first, last, value);
  if (result.ec != std::errc()) return fail("an integer");
  if (result.ptr != last && (*result.ptr == '.' || *result.ptr == 'e' || *result.ptr == 'E'))
    return fail("an integer");
  at_ += static_cast<size_t>(result.ptr - first);
  return true;
}

bool JsonScanner::skip_string() {
  for (++at_; at_ < text_.size(); ++at_) {
    if (text_[at_] == '"') {
      ++at_;
      return true;
    }
    if (text_[at_] == '\\') ++at_;
  }
  return fail("a closing quote");
}

// A number or one of the three words; what it says is not checked here.
bool JsonScanner::skip_scalar() {
  const size_t start = at_;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == 'E' || c == '+' ||
                      c == '-' || c == '.';
    if (!word) break;
    ++at_;
  }
  return at_ > start || fail("a value");
}

bool JsonScanner::skip_value(std::string_view& span) {
  peek();
  const size_t start = at_;
  int depth = 0;
  do {
    const char c = peek();
    if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return fail(fmt::format("at most {} levels", kMaxDepth));
      ++at_;
    } else if (c == '}' || c == ']') {
      if (--depth < 0) return fail("a value");
      ++at_;
    } else if (depth > 0 && (c == ',' || c == ':')) {
      ++at_;
    } else if (c == '"') {
      if (!skip_string()) return false;
    } else if (!skip_scalar()) {
      return false;
    }
  } while (depth > 0);
  span = text_.substr(start, at_ - start);
  return true;
}

}  // namespace tandem::text
