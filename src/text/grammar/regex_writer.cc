#include <fmt/format.h>

#include <algorithm>

#include "text/grammar/regex.h"

namespace tandem::text {
namespace {

constexpr int64_t kMaxCost = 1024;  // of one pattern

int64_t size_of(const CharSet& set) {
  int64_t size = 0;
  for (const CharSet::Range& range : set.ranges()) size += range.last - range.first + 1;
  return size;
}

int64_t cost_of(const CharSet& set) {
  const int64_t size = size_of(set);
  return size > 200 ? kWideCost : size > 15 ? 4 : 1;
}

int64_t cost_of(const RegexNode& node) {
  if (node.kind == RegexNode::Kind::kSet) return cost_of(node.set);
  // Even what matches nothing takes room.
  int64_t cost = node.kind == RegexNode::Kind::kChoice ? 1 : 0;
  for (const RegexNode& part : node.parts) cost = std::min(cost + cost_of(part), 1 + kMaxCost);
  if (node.kind != RegexNode::Kind::kRepeat) return cost;
  const int64_t times = node.max < 0 ? std::max(node.min, 1) : node.max;
  return std::min(cost * times, 1 + kMaxCost);
}

class Writer {
 public:
  explicit Writer(RegexForm form) : form_(form) {}

  std::string write(const RegexNode& node) {
    switch (node.kind) {
      case RegexNode::Kind::kSet:
        return write_set(node.set);
      case RegexNode::Kind::kSequence:
        return join(node.parts, "");
      case RegexNode::Kind::kChoice:
        return "(?:" + join(node.parts, "|") + ")";
      case RegexNode::Kind::kRepeat:
        break;
    }
    const std::string part = write(node.parts.front());
    if (part.empty() || node.max == 0) return "";
    return repeat_pattern(part, node.min, node.max);
  }

  std::string any() const {
    return form_ == RegexForm::kText ? CharSet::all().pattern() : json_char_pattern();
  }
  bool impossible() const { return impossible_; }

 private:
  std::string join(const std::vector<RegexNode>& parts, std::string_view separator) {
    std::vector<std::string> texts;
    for (const RegexNode& part : parts) texts.push_back(write(part));
    return fmt::format("{}", fmt::join(texts, separator));
  }

  std::string write_set(const CharSet& set) {
    if (form_ == RegexForm::kText) return set.pattern();
    std::string pattern = json_set_pattern(set);
    if (pattern.empty()) impossible_ = true;
    return pattern;
  }

  RegexForm form_;
  bool impossible_ = false;
};

}  // namespace

base::Result<std::string> regex_ebnf(Ebnf& ebnf, const Regex& regex, RegexForm form,
                                     RegexMatch match, const std::string& where) {
  int64_t cost = 0;
  for (const Regex::Branch& branch : regex.branches) cost += cost_of(branch.node);
  if (cost > kMaxCost)
    return base::unsupported(
        "{}: expected a regular expression of at most {} states (a character of a large class "
        "counts "
        "as {}), got one of more; bounds such as {{0,500}} are the usual cause",
        where, kMaxCost, kWideCost);
  ebnf.spend(cost);
  Writer writer(form);
  std::vector<std::string> branches;
  for (const Regex::Branch& branch : regex.branches) {
    std::string pattern = writer.write(branch.node);
    if (match == RegexMatch::kSearch && !branch.from_start) pattern = writer.any() + "*" + pattern;
    if (match == RegexMatch::kSearch && !branch.to_end) pattern += writer.any() + "*";
    branches.push_back(std::move(pattern));
  }
  if (writer.impossible())
    return base::unsupported(
        "{}: expected characters that can stand in a JSON string, got a control character", where);
  return pattern_ebnf(fmt::format("{}", fmt::join(branches, "|")));
}

std::string json_set_pattern(const CharSet& set) {
  std::vector<std::string> choices;
  const CharSet plain = set & json_plain();
  if (!plain.empty()) choices.push_back(plain.pattern());
  std::string escapes;
  constexpr std::pair<uint32_t, char> kEscapes[] = {
      {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}};
  for (const auto& [character, letter] : kEscapes)
    if (set.has(character)) escapes += letter;
  for (const char c : {'"', '\\'})
    if (set.has(static_cast<uint32_t>(c))) escapes += pattern_char(static_cast<uint32_t>(c));
  if (!escapes.empty()) choices.push_back(pattern_char('\\') + "[" + escapes + "]");
  if (choices.empty()) return "";
  return fmt::format("(?:{})", fmt::join(choices, "|"));
}

const std::string& json_char_pattern() {
  // A surrogate pair is one character; half of one is none.
  static const std::string kPattern = fmt::format(
      R"((?:{0}|{1}(?:["{1}{2}bfnrt]|u(?:[0-9A-CE-Fa-ce-f][0-9A-Fa-f]{{3}}|[Dd][0-7][0-9A-Fa-f]{{2}}|[Dd][89ABab][0-9A-Fa-f]{{2}}{1}u[Dd][C-Fc-f][0-9A-Fa-f]{{2}}))))",
      json_plain().pattern(), pattern_char('\\'), pattern_char('/'));
  return kPattern;
}

std::string repeat_pattern(const std::string& pattern, int64_t min, int64_t max) {
  const std::string group = fmt::format("(?:{})", pattern);
  std::string result;
  if (min == 1 && max < 0) return group + "+";
  for (int64_t i = 0; i < min; ++i) result += group;
  if (max < 0) return result + group + "*";
  // One inside the other: side by side there would be many ways to read the same text.
  std::string rest;
  for (int64_t i = min; i < max; ++i) rest = fmt::format("(?:|{}{})", group, rest);
  return result + rest;
}

const std::string& call_char_pattern() {
  static const std::string kPattern =
      (CharSet::all() - CharSet({{0, 8}, {0xB, 0xC}, {0xE, 0x1F}})).pattern();
  return kPattern;
}

std::string pattern_ebnf(const std::string& pattern) {
  return pattern.empty() ? "\"\"" : "Regex(" + ebnf_literal(pattern) + ")";
}

}  // namespace tandem::text
