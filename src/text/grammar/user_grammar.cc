#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

#include "text/grammar/answer_grammar.h"
#include "text/grammar/regex.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

constexpr size_t kMaxBytes = size_t{64} << 10;
constexpr size_t kMaxDepth = 64;
constexpr int64_t kMaxRepeat = 1000;
constexpr int64_t kMaxCost = 2048;

// Elements of the library that are not part of GBNF; some of them would go past the limits here.
constexpr std::array<std::string_view, 6> kMacros = {"Regex", "Substring",        "TagDispatch",
                                                     "Token", "TokenTagDispatch", "ExcludeToken"};

// Reads over a grammar without understanding it, adding up what it will cost to prepare.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  // What is wrong; empty when nothing is.
  std::string run() {
    costs_.push_back({});
    while (fault_.empty() && next_ < text_.size()) step();
    if (!fault_.empty()) return fault_;
    if (costs_.size() > 1) return "brackets that close, got an open one";
    close_element();
    if (costs_.back().total > kMaxCost)
      return fmt::format(
          "a grammar of at most {} states (a character of a large class counts as {}), got one of "
          "more",
          kMaxCost, kWideCost);
    return "";
  }

 private:
  struct Cost {
    int64_t total = 0;  // of the elements before the last
    int64_t last = 0;   // of the last, which a repetition may follow
  };

  void step() {
    const char c = text_[next_];
    if (c == '#') {
      next_ = std::min(text_.find('\n', next_), text_.size());
    } else if (c == '"') {
      literal();
    } else if (c == '[') {
      if (next_ > 0 && is_name(text_[next_ - 1]) && !in_body_) return fail("rules without options");
      char_class();
    } else if (c == '(') {
      if (costs_.size() > kMaxDepth)
        return fail(fmt::format("brackets nested at most {} deep", kMaxDepth));
      close_element();
      costs_.push_back({});
      ++next_;
    } else if (c == ')') {
      if (costs_.size() == 1) return fail("brackets that are open, got a stray one");
      close_element();
      const int64_t inner = costs_.back().total;
      costs_.pop_back();
      costs_.back().last = inner;
      ++next_;
    } else if (c == '{') {
      repetition();
    } else if (is_name(c)) {
      name();
    } else {
      if (c == '\n') in_body_ = false;
      if (c == ':' || c == '|') in_body_ = true;
      ++next_;
    }
  }

  static bool is_name(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
           c == '-' || c == '.';
  }

  void fail(std::string message) { fault_ = std::move(message); }

  void close_element() {
    Cost& cost = costs_.back();
    cost.total = std::min(cost.total + cost.last, 1 + kMaxCost);
    cost.last = 0;
  }

  void element(int64_t cost) {
    close_element();
    costs_.back().last = cost;
  }

  // To the closing character, passing over what a backslash protects. Returns what is between.
  std::string_view skip_to(char close) {
    const size_t start = ++next_;
    while (next_ < text_.size() && text_[next_] != close) next_ += text_[next_] == '\\' ? 2 : 1;
    const size_t end = std::min(next_, text_.size());
    next_ = end + 1;
    return text_.substr(start, end - start);
  }

  void literal() { element(static_cast<int64_t>(skip_to('"').size()) / 16); }

  void char_class() {
    const std::string_view inside = skip_to(']');
    const bool wide = inside.starts_with('^') || inside.find('\\') != std::string_view::npos ||
                      std::ranges::any_of(inside, [](char c) { return (c & 0x80) != 0; });
    element(wide ? kWideCost : 4);
  }

  void name() {
    const size_t start = next_;
    while (next_ < text_.size() && is_name(text_[next_])) ++next_;
    const std::string_view word = text_.substr(start, next_ - start);
    if (next_ < text_.size() && text_[next_] == '(' &&
        std::ranges::find(kMacros, word) != kMacros.end())
      return fail(fmt::format("rules, texts, classes, groups and repetitions, got {}(", word));
    element(1);
  }

  void repetition() {
    const std::string_view inside = skip_to('}');
    int64_t most = 0, number = 0;
    for (const char c : inside) {
      number = c >= '0' && c <= '9' ? number * 10 + (c - '0') : 0;
      most = std::max(most, number);
      if (most > kMaxRepeat) return fail(fmt::format("repetitions up to {}", kMaxRepeat));
    }
    Cost& cost = costs_.back();
    cost.last = std::min(cost.last * std::max<int64_t>(most, 1), 1 + kMaxCost);
  }

  std::string_view text_;
  size_t next_ = 0;
  bool in_body_ = false;     // of a rule, after `::=`
  std::vector<Cost> costs_;  // of the open groups
  std::string fault_;
};

// GBNF's \xHH has two digits; with xgrammar 0.2.8 it goes on as far as there are any ("\x41b" is
// one character), so it is written with four.
std::string with_long_escapes(std::string_view ebnf) {
  std::string result;
  for (size_t i = 0; i < ebnf.size(); ++i) {
    result += ebnf[i];
    if (ebnf[i] != '\\' || i + 1 == ebnf.size()) continue;
    const std::string_view digits = ebnf.substr(i + 2, 2);
    const bool hex = digits.size() == 2 && std::ranges::all_of(digits, [](unsigned char c) {
                       return std::isxdigit(c) != 0;
                     });
    if (ebnf[i + 1] == 'x' && hex)
      result += "u00";
    else
      result += ebnf[i + 1];
    ++i;
  }
  return result;
}

}  // namespace

base::Result<GrammarText> user_grammar(const std::string& ebnf, const std::string& where) {
  if (ebnf.empty() || ebnf.size() > kMaxBytes)
    return base::invalid("{}: expected a grammar of 1 to {} bytes, got {}", where, kMaxBytes,
                         ebnf.size());
  if (!is_valid_utf8(ebnf) || ebnf.find('\0') != std::string::npos)
    return base::invalid("{}: expected UTF-8 without zero bytes", where);
  if (ebnf.find("::=") == std::string::npos)
    return base::unsupported(
        "{}: expected rules such as root ::= \"yes\" | \"no\" (GBNF); other notations, Lark among "
        "them, are not read",
        where);
  const std::string fault = Scanner(ebnf).run();
  if (!fault.empty()) return base::unsupported("{}: expected {}", where, fault);
  return GrammarText{with_long_escapes(ebnf) + "\n"};
}

}  // namespace tandem::text
