#include <fmt/format.h>

#include <optional>

#include "text/grammar/regex.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

constexpr size_t kMaxPatternBytes = 4096;
constexpr int kMaxDepth = 64;
constexpr int kMaxRepeat = 10'000;

const CharSet& digits() {
  static const CharSet kSet({{'0', '9'}});
  return kSet;
}

const CharSet& word_characters() {
  static const CharSet kSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
  return kSet;
}

const CharSet& spaces() {
  static const CharSet kSet({{0x09, 0x0D},
                             {0x20, 0x20},
                             {0xA0, 0xA0},
                             {0x1680, 0x1680},
                             {0x2000, 0x200A},
                             {0x2028, 0x2029},
                             {0x202F, 0x202F},
                             {0x205F, 0x205F},
                             {0x3000, 0x3000},
                             {0xFEFF, 0xFEFF}});
  return kSet;
}

const CharSet& line_ends() {
  static const CharSet kSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}});
  return kSet;
}

class Parser {
 public:
  Parser(std::vector<uint32_t> characters, const std::string& where)
      : characters_(std::move(characters)), where_(where) {}

  base::Result<Regex> run() {
    Regex regex;
    do {
      Regex::Branch branch;
      branch.from_start = take('^');
      branch.node = sequence(0);
      branch.to_end = take('$');
      regex.branches.push_back(std::move(branch));
    } while (error_.empty() && take('|'));
    if (error_.empty() && !at_end()) unexpected();
    if (!error_.empty())
      return base::unsupported("{}: expected a regular expression without {}", where_, error_);
    return regex;
  }

 private:
  bool at_end() const { return next_ == characters_.size(); }
  uint32_t peek(size_t ahead = 0) const {
    return next_ + ahead < characters_.size() ? characters_[next_ + ahead] : 0;
  }
  bool take(uint32_t c) {
    if (at_end() || peek() != c) return false;
    ++next_;
    return true;
  }
  void fail(std::string message) {
    if (error_.empty()) error_ = std::move(message);
    next_ = characters_.size();
  }
  void unexpected() {
    const uint32_t c = peek();
    if (c == '^' || c == '$') return fail("^ and $ anywhere but at its ends");
    fail(c < 0x80 ? fmt::format("a stray {} at character {}", static_cast<char>(c), next_)
                  : fmt::format("a stray character at {}", next_));
  }

  RegexNode choice(int depth) {
    if (depth > kMaxDepth) {
      fail(fmt::format("groups nested more than {} deep", kMaxDepth));
      return {};
    }
    RegexNode node{.kind = RegexNode::Kind::kChoice, .set = {}, .parts = {}};
    do node.parts.push_back(sequence(depth));
    while (error_.empty() && take('|'));
    return node;
  }

  RegexNode sequence(int depth) {
    RegexNode node;
    while (!at_end() && peek() != '|' && peek() != ')' && peek() != '$' && peek() != '^') {
      RegexNode part = atom(depth);
      if (!error_.empty()) return node;
      node.parts.push_back(quantified(std::move(part)));
    }
    return node;
  }

  RegexNode atom(int depth) {
    const uint32_t c = peek();
    if (c == '(') return group(depth);
    if (c == '[') return set_node(char_class());
    if (c == '*' || c == '+' || c == '?') {
      fail(fmt::format("a {} that follows nothing it could repeat", static_cast<char>(c)));
      return {};
    }
    if (c == '{' && looks_like_count()) {
      fail("counts such as {2} or {2,5} anywhere but behind what they repeat; {,5} is {0,5} here");
      return {};
    }
    ++next_;
    if (c == '.') return set_node(CharSet::all() - line_ends());
    if (c == '\\') return set_node(escape(false));
    return set_node(CharSet({{c, c}}));
  }

  static RegexNode set_node(CharSet set) {
    return {.kind = RegexNode::Kind::kSet, .set = std::move(set), .parts = {}};
  }

  RegexNode group(int depth) {
    ++next_;
    if (take('?')) {
      const bool named = peek() == '<' && peek(1) != '=' && peek(1) != '!';
      if (named) {
        while (!at_end() && peek() != '>') ++next_;
        ++next_;
        if (next_ > characters_.size()) next_ = characters_.size();
      } else if (!take(':')) {
        fail(peek() == '=' || peek() == '!' || peek() == '<'
                 ? "look-around such as (?=...) or (?!...)"
                 : "flags in a group such as (?i)");
        return {};
      }
    }
    RegexNode node = choice(depth + 1);
    if (error_.empty() && !take(')')) at_end() ? fail("an open group") : unexpected();
    return node;
  }

  // `{2}`, `{2,}`, `{2,5}` or another language's `{,5}`: as plain text it would mean something
  // else.
  bool looks_like_count() const {
    size_t num_digits = 0, num_commas = 0;
    for (size_t i = 1; peek(i) != '}'; ++i) {
      if (peek(i) >= '0' && peek(i) <= '9')
        ++num_digits;
      else if (peek(i) != ',' || ++num_commas > 1)
        return false;
    }
    return num_digits > 0;
  }

  std::optional<int> number() {
    if (peek() < '0' || peek() > '9') return std::nullopt;
    int value = 0;
    while (!at_end() && peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<int>(peek() - '0');
      if (value > kMaxRepeat) {
        fail(fmt::format("a repetition of more than {}", kMaxRepeat));
        return std::nullopt;
      }
      ++next_;
    }
    return value;
  }

  // `{2}`, `{2,}`, `{2,5}`; other braces stand for themselves.
  bool braces(int& min, int& max) {
    const size_t start = next_;
    ++next_;
    const std::optional<int> low = number();
    if (low && take('}')) {
      min = max = *low;
      return true;
    }
    if (low && take(',')) {
      if (take('}')) {
        min = *low;
        max = -1;
        return true;
      }
      const std::optional<int> high = number();
      if (high && take('}')) {
        min = *low;
        max = *high;
        if (max < min) fail("a repetition that ends before it begins");
        return true;
      }
    }
    if (error_.empty()) next_ = start;
    return false;
  }

  RegexNode quantified(RegexNode part) {
    int min = 0, max = -1;
    bool repeats = true;
    if (take('*')) {
    } else if (take('+')) {
      min = 1;
    } else if (take('?')) {
      max = 1;
    } else {
      repeats = !at_end() && peek() == '{' && braces(min, max);
    }
    if (!repeats) return part;
    take('?');  // lazy: the same texts
    RegexNode node{
        .kind = RegexNode::Kind::kRepeat, .set = {}, .parts = {}, .min = min, .max = max};
    node.parts.push_back(std::move(part));
    return node;
  }

  uint32_t hex(size_t count) {
    uint32_t value = 0;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t c = peek();
      const bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      if (!good) {
        fail("an escape with too few hexadecimal digits");
        return 0;
      }
      value = value * 16 + (c <= '9' ? c - '0' : (c | 0x20U) - 'a' + 10);
      ++next_;
    }
    return value;
  }

  uint32_t unicode_escape() {
    if (!take('{')) {
      const uint32_t high = hex(4);
      if (high < 0xD800 || high > 0xDBFF || peek() != '\\' || peek(1) != 'u') return high;
      next_ += 2;
      const uint32_t low = hex(4);
      if (error_.empty() && (low < 0xDC00 || low > 0xDFFF)) fail("half of a surrogate pair");
      return 0x10000 + ((high - 0xD800) << 10U) + (low - 0xDC00);
    }
    size_t digits = 0;
    while (digits < 7 && peek(digits) != '}' && next_ + digits < characters_.size()) ++digits;
    if (digits == 0 || digits > 6) {
      fail("\\u{...} of other than 1 to 6 digits");
      return 0;
    }
    const uint32_t value = hex(digits);
    if (error_.empty()) ++next_;
    return value;
  }

  CharSet one(uint32_t c) {
    if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) fail("half of a surrogate pair");
    return error_.empty() ? CharSet({{c, c}}) : CharSet();
  }

  // After the backslash.
  CharSet escape(bool in_class) {
    const uint32_t c = peek();
    if (at_end()) fail("a backslash at the end");
    ++next_;
    switch (c) {
      case 'd':
        return digits();
      case 'D':
        return CharSet::all() - digits();
      case 'w':
        return word_characters();
      case 'W':
        return CharSet::all() - word_characters();
      case 's':
        return spaces();
      case 'S':
        return CharSet::all() - spaces();
      case 'n':
        return one('\n');
      case 't':
        return one('\t');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
        return one(hex(2));
      case 'u':
        return one(unicode_escape());
      case 'c':
        if ((peek() | 0x20U) >= 'a' && (peek() | 0x20U) <= 'z')
          return one(characters_[next_++] & 0x1FU);
        fail("\\c that is not followed by a letter");
        return {};
      case '0':
        if (peek() >= '0' && peek() <= '9') fail("an octal escape");
        return one(0);
      default:
        break;
    }
    if (in_class && c == 'b') return one('\b');
    if (c == 'b' || c == 'B') fail("word boundaries (\\b, \\B)");
    if (c == 'p' || c == 'P') fail("Unicode properties (\\p{...})");
    if (c == 'k' || (c >= '1' && c <= '9')) fail("references to a group");
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter) fail(fmt::format("the escape \\{}", static_cast<char>(c)));
    return one(c);
  }

  // One character or escape of a class.
  CharSet class_item() {
    const uint32_t c = peek();
    ++next_;
    return c == '\\' ? escape(true) : one(c);
  }

  static bool is_one(const CharSet& set) {
    return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].last;
  }

  CharSet char_class() {
    ++next_;
    const bool negated = take('^');
    CharSet set;
    while (error_.empty() && !take(']')) {
      if (at_end()) {
        fail("an open [");
        break;
      }
      const CharSet first = class_item();
      if (peek() != '-' || peek(1) == ']' || next_ + 1 >= characters_.size()) {
        set = set | first;
        continue;
      }
      ++next_;
      const CharSet last = class_item();
      if (!error_.empty()) break;
      if (!is_one(first) || !is_one(last) || first.ranges()[0].first > last.ranges()[0].first) {
        fail("a range of characters whose ends are in the wrong order or no characters");
        break;
      }
      set = set | CharSet({{first.ranges()[0].first, last.ranges()[0].first}});
    }
    if (negated) set = CharSet::all() - set;
    if (set.empty()) fail("a class without characters");
    return set;
  }

  std::vector<uint32_t> characters_;
  const std::string& where_;
  size_t next_ = 0;
  std::string error_;
};

}  // namespace

base::Result<Regex> parse_regex(std::string_view pattern, const std::string& where) {
  if (pattern.size() > kMaxPatternBytes)
    return base::unsupported("{}: expected at most {} bytes, got {}", where, kMaxPatternBytes,
                             pattern.size());
  std::vector<uint32_t> characters;
  for (size_t i = 0; i < pattern.size();) {
    const Utf8Scalar next = decode_scalar(pattern, i);
    if (!next.valid) return base::invalid("{}: expected UTF-8", where);
    characters.push_back(next.value);
    i += next.length;
  }
  return Parser(std::move(characters), where).run();
}

}  // namespace tandem::text
