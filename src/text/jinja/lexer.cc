#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/string_literal.h"
#include "text/jinja/syntax_error.h"
#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

// \r\n and \r become \n; one newline at the very end is dropped.
std::string normalize_newlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      result += source[i];
    } else {
      result += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_char(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) lex_data();
    emit(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool at(std::string_view piece, size_t offset = 0) const {
    return source_.compare(position_ + offset, piece.size(), piece) == 0;
  }
  char peek(size_t offset = 0) const {
    return position_ + offset < source_.size() ? source_[position_ + offset] : '\0';
  }
  void emit(TokenKind kind, std::string text) {
    tokens_.push_back(Token{kind, line_, std::move(text)});
  }
  // Moves on, keeping the line number and whether the next text starts a line.
  void advance(size_t length) {
    const auto begin = source_.begin() + static_cast<std::ptrdiff_t>(position_);
    line_ +=
        static_cast<uint32_t>(std::count(begin, begin + static_cast<std::ptrdiff_t>(length), '\n'));
    position_ += length;
    if (length > 0) line_starting_ = source_[position_ - 1] == '\n';
  }
  size_t whitespace_length(size_t from) const {
    size_t position = from;
    while (position < source_.size()) {
      size_t next = position;
      if (!is_space(next_code_point(source_, next))) break;
      position = next;
    }
    return position - from;
  }

  // Length of `close` with its sign and the whitespace it swallows, when it stands at `from`.
  size_t tag_end_length(size_t from, std::string_view close, bool trims_newline) const {
    const auto is_close = [&](size_t where) {
      return source_.compare(where, close.size(), close) == 0;
    };
    if (from >= source_.size()) return 0;
    if (source_[from] == '-' && is_close(from + 1)) {
      const size_t length = 1 + close.size();
      return length + whitespace_length(from + length);
    }
    if (trims_newline && source_[from] == '+' && is_close(from + 1)) return 1 + close.size();
    if (!is_close(from)) return 0;
    const size_t after = from + close.size();
    const bool newline = trims_newline && after < source_.size() && source_[after] == '\n';
    return close.size() + (newline ? 1 : 0);
  }

  void emit_data(size_t begin, size_t end, char sign, bool is_variable) {
    std::string_view text = std::string_view(source_).substr(begin, end - begin);
    if (sign == '-') {
      text = text.substr(0, stripped_length(text));
    } else if (sign != '+' && !is_variable) {
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      const std::string_view rest = text.substr(line_begin);
      if ((line_begin > 0 || line_starting_) && !rest.empty() && stripped_length(rest) == 0) {
        text = text.substr(0, line_begin);
      }
    }
    if (!text.empty()) emit(TokenKind::kData, std::string(text));
  }

  // Length without trailing whitespace.
  static size_t stripped_length(std::string_view text) {
    size_t length = 0;
    for (size_t position = 0; position < text.size();) {
      if (!is_space(next_code_point(text, position))) length = position;
    }
    return length;
  }

  void lex_data() {
    size_t tag = position_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        emit(TokenKind::kData, source_.substr(position_));
        return advance(source_.size() - position_);
      }
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    const char type = source_[tag + 1];
    const char sign_char = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const char sign = sign_char == '-' || sign_char == '+' ? sign_char : '\0';
    emit_data(position_, tag, sign, type == '{');
    advance(tag - position_);
    if (type == '%' && lex_raw()) return;
    const size_t begin_length = sign == '\0' ? 2 : 3;
    if (type == '#') return lex_comment(begin_length);
    emit(type == '{' ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, "");
    advance(begin_length);
    lex_tag(type == '{');
  }

  void lex_comment(size_t begin_length) {
    const uint32_t begin_line = line_;
    advance(begin_length);
    const size_t content = position_;
    const size_t close = source_.find("#}", content);
    if (close == std::string::npos) throw SyntaxError(begin_line, "missing end of comment tag");
    const bool signed_end =
        close > content && (source_[close - 1] == '-' || source_[close - 1] == '+');
    const size_t end = signed_end ? close - 1 : close;
    advance(end - content + tag_end_length(end, "#}", true));
  }

  // `{%- endraw -%}` and the like at `from`: its length and sign; `word` is raw or endraw.
  size_t raw_tag_length(size_t from, std::string_view word, char& sign) const {
    if (source_.compare(from, 2, "{%") != 0) return 0;
    size_t position = from + 2;
    sign = '\0';
    if (position < source_.size() && (source_[position] == '-' || source_[position] == '+')) {
      sign = source_[position++];
    }
    position += whitespace_length(position);
    if (source_.compare(position, word.size(), word) != 0) return 0;
    position += word.size();
    position += whitespace_length(position);
    size_t end = tag_end_length(position, "%}", true);
    if (end == 0) return 0;
    if (word == "raw") {  // an opening raw tag keeps the newline after it
      if (source_[position] == '+') return 0;
      if (source_[position] == '%') end = 2;
    }
    return position + end - from;
  }

  bool lex_raw() {
    char sign = '\0';
    const size_t begin_length = raw_tag_length(position_, "raw", sign);
    if (begin_length == 0) return false;
    const uint32_t begin_line = line_;
    advance(begin_length);
    for (size_t tag = source_.find("{%", position_); tag != std::string::npos;
         tag = source_.find("{%", tag + 2)) {
      const size_t end_length = raw_tag_length(tag, "endraw", sign);
      if (end_length == 0) continue;
      emit_data(position_, tag, sign, false);
      advance(tag - position_ + end_length);
      return true;
    }
    throw SyntaxError(begin_line, "missing end of raw directive");
  }

  void lex_tag(bool is_variable) {
    const std::string_view close = is_variable ? "}}" : "%}";
    std::string open_brackets;
    while (true) {
      advance(whitespace_length(position_));
      if (position_ >= source_.size()) {
        throw SyntaxError(line_, fmt::format("expected '{}', got the end of the template", close));
      }
      if (open_brackets.empty()) {
        if (const size_t length = tag_end_length(position_, close, !is_variable)) {
          emit(is_variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, "");
          return advance(length);
        }
      }
      lex_token(open_brackets);
    }
  }

  void lex_token(std::string& open_brackets) {
    const char c = peek();
    if (is_digit(c)) return lex_number();
    if (c == '\'' || c == '"') return lex_string(c);
    if (is_name_char(c)) {
      size_t length = 1;
      while (is_name_char(peek(length))) ++length;
      emit(TokenKind::kName, source_.substr(position_, length));
      return advance(length);
    }
    for (const std::string_view symbol : {"//", "**", "==", "!=", ">=", "<="}) {
      if (at(symbol)) {
        emit(TokenKind::kOperator, std::string(symbol));
        return advance(2);
      }
    }
    if (c == '\0' || std::string_view("+-/*%~[](){}><=.:|,").find(c) == std::string_view::npos) {
      size_t end = position_;
      next_code_point(source_, end);
      throw SyntaxError(line_, fmt::format("unexpected character '{}'",
                                           source_.substr(position_, end - position_)));
    }
    balance(c, open_brackets);
    emit(TokenKind::kOperator, std::string(1, c));
    advance(1);
  }

  void balance(char c, std::string& open_brackets) const {
    if (c == '(') open_brackets += ')';
    if (c == '[') open_brackets += ']';
    if (c == '{') open_brackets += '}';
    if (c != ')' && c != ']' && c != '}') return;
    if (open_brackets.empty()) throw SyntaxError(line_, fmt::format("unexpected '{}'", c));
    if (open_brackets.back() != c) {
      throw SyntaxError(line_,
                        fmt::format("unexpected '{}', expected '{}'", c, open_brackets.back()));
    }
    open_brackets.pop_back();
  }

  void lex_string(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) throw SyntaxError(line_, "missing end of a string");
    const std::string_view body =
        std::string_view(source_).substr(position_ + 1, end - position_ - 1);
    emit(TokenKind::kString, unescape_string(body, line_));
    advance(end + 1 - position_);
  }

  // Digits with single underscores between them.
  size_t digits_length(size_t from) const {
    size_t length = 0;
    while (is_digit(peek(from + length)) ||
           (length > 0 && peek(from + length) == '_' && is_digit(peek(from + length + 1)))) {
      ++length;
    }
    return length;
  }

  void lex_number() {
    size_t length = digits_length(0);
    bool is_float = false;
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    if (!after_dot) {
      const size_t fraction = peek(length) == '.' ? digits_length(length + 1) : 0;
      if (fraction > 0) {
        length += 1 + fraction;
        is_float = true;
      }
      if (peek(length) == 'e' || peek(length) == 'E') {
        const size_t sign = peek(length + 1) == '+' || peek(length + 1) == '-' ? 1 : 0;
        const size_t exponent = digits_length(length + 1 + sign);
        if (exponent > 0) {
          length += 1 + sign + exponent;
          is_float = true;
        }
      }
    }
    std::string text = source_.substr(position_, length);
    if (!is_float &&
        (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") < text.size())) {
      throw SyntaxError(line_, fmt::format("number {} has a leading zero", text));
    }
    if (is_name_char(peek(length))) {
      throw SyntaxError(line_, "only decimal numbers are supported", true);
    }
    std::erase(text, '_');
    emit(is_float ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
    advance(length);
  }

  std::string source_;
  size_t position_ = 0;
  uint32_t line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace tandem::text::jinja
