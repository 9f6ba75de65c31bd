#include "text/jinja/string_literal.h"

#include <fmt/format.h>

#include "text/jinja/syntax_error.h"
#include "text/jinja/unicode.h"
#include "text/utf8.h"

namespace tandem::text::jinja {
namespace {

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// Reads up to max_digits digits of the base at position.
char32_t read_digits(std::string_view body, size_t& position, size_t max_digits, int base,
                     size_t& count) {
  char32_t number = 0;
  for (count = 0; count < max_digits && position < body.size(); ++count, ++position) {
    const int digit = digit_value(body[position]);
    if (digit >= base) break;
    number = number * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
  }
  return number;
}

char simple_escape(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return '\0';
  }
}

void append_numeric(std::string& out, std::string_view body, size_t& position, uint32_t line) {
  const char type = body[position];
  size_t count = 0;
  char32_t code_point = 0;
  if (type >= '0' && type <= '7') {
    code_point = read_digits(body, position, 3, 8, count);
  } else {
    const size_t digits = type == 'x' ? 2 : type == 'u' ? 4 : 8;
    ++position;
    code_point = read_digits(body, position, digits, 16, count);
    if (count != digits) throw SyntaxError(line, fmt::format("truncated \\{} escape", type));
  }
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) {
    throw SyntaxError(line, "escape outside of the Unicode range");
  }
  append_scalar(out, code_point);
}

}  // namespace

std::string unescape_string(std::string_view body, uint32_t line) {
  std::string out;
  out.reserve(body.size());
  for (size_t i = 0; i < body.size();) {
    if (body[i] != '\\') {
      out += body[i++];
      continue;
    }
    const char next = body[++i];  // the lexer never ends a body behind a backslash
    if (next == '\n') {
      ++i;
    } else if (const char escaped = simple_escape(next)) {
      out += escaped;
      ++i;
    } else if (next == 'x' || next == 'u' || next == 'U' || (next >= '0' && next <= '7')) {
      append_numeric(out, body, i, line);
    } else if (next == 'N') {
      throw SyntaxError(line, "the escape \\N{...} is not supported", true);
    } else {
      out += '\\';  // Python keeps unknown escapes
    }
  }
  return out;
}

}  // namespace tandem::text::jinja
