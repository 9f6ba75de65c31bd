// Patterns against a slow matcher that follows the definition: nothing else is let through,
// whatever groups and repetitions are put together.
#include <array>
#include <functional>
#include <random>

#include "tests/unit/text/grammar/support.h"
#include "text/grammar/ebnf.h"
#include "text/grammar/regex.h"

namespace tandem::text {
namespace {

using Rest = std::function<bool(size_t)>;

bool match(const RegexNode& node, const std::string& text, size_t at, const Rest& rest);

bool match_parts(const RegexNode& node, size_t part, const std::string& text, size_t at,
                 const Rest& rest) {
  if (part == node.parts.size()) return rest(at);
  return match(node.parts[part], text, at,
               [&](size_t next) { return match_parts(node, part + 1, text, next, rest); });
}

bool match_times(const RegexNode& node, int times, const std::string& text, size_t at,
                 const Rest& rest) {
  if (times >= node.min && rest(at)) return true;
  if (node.max >= 0 && times >= node.max) return false;
  return match(node.parts[0], text, at, [&](size_t next) {
    // An empty round leads nowhere new.
    return (next != at || times < node.min) && match_times(node, times + 1, text, next, rest);
  });
}

bool match(const RegexNode& node, const std::string& text, size_t at, const Rest& rest) {
  switch (node.kind) {
    case RegexNode::Kind::kSet:
      return at < text.size() && node.set.has(static_cast<unsigned char>(text[at])) && rest(at + 1);
    case RegexNode::Kind::kSequence:
      return match_parts(node, 0, text, at, rest);
    case RegexNode::Kind::kChoice:
      for (const RegexNode& part : node.parts)
        if (match(part, text, at, rest)) return true;
      return false;
    case RegexNode::Kind::kRepeat:
      break;
  }
  return match_times(node, 0, text, at, rest);
}

bool matches(const Regex& regex, const std::string& text) {
  for (const Regex::Branch& branch : regex.branches)
    if (match(branch.node, text, 0, [&](size_t end) { return end == text.size(); })) return true;
  return false;
}

std::string random_pattern(std::mt19937& random, int depth) {
  constexpr std::array kAtoms = {"a", "b", "[ab]", "[^a]", "1", "."};
  constexpr std::array kTimes = {"", "", "*", "+", "?", "{2}", "{1,2}", "{0,2}", "{2,}"};
  const auto pick = [&random](size_t count) { return random() % count; };
  std::string result;
  for (size_t i = 0, count = 1 + pick(3); i < count; ++i) {
    std::string atom = kAtoms[pick(kAtoms.size())];
    if (depth > 0 && pick(2) == 0) {
      const std::string first = random_pattern(random, depth - 1);
      atom = pick(2) == 0 ? fmt::format("({})", first)
                          : fmt::format("({}|{})", first, random_pattern(random, depth - 1));
    }
    result += fmt::format("{}{}", atom, kTimes[pick(kTimes.size())]);
  }
  return result;
}

// The same as a grammar of the user's.
std::string to_ebnf(const RegexNode& node) {
  std::vector<std::string> parts;
  for (const RegexNode& part : node.parts) parts.push_back(to_ebnf(part));
  switch (node.kind) {
    case RegexNode::Kind::kSet: {
      std::string result = "[";
      for (const CharSet::Range& range : node.set.ranges())
        result += fmt::format("\\U{:08X}-\\U{:08X}", range.first, range.last);
      return result + "]";
    }
    case RegexNode::Kind::kSequence:
      return fmt::format("({})", fmt::join(parts, " "));
    case RegexNode::Kind::kChoice:
      return fmt::format("({})", fmt::join(parts, " | "));
    case RegexNode::Kind::kRepeat:
      break;
  }
  return fmt::format("({})", repeat(fmt::format("({})", parts[0]), node.min, node.max));
}

TEST(Regex, RandomPatternsMatchWhatTheyMean) {
  std::mt19937 random(5);
  std::vector<std::string> texts = {""};
  for (size_t i = 0; i < texts.size() && texts[i].size() < 4; ++i)
    for (const char c : {'a', 'b', '1'}) texts.push_back(fmt::format("{}{}", texts[i], c));
  int num_matched = 0, num_ebnf = 0;
  for (int round = 0; round < 60; ++round) {
    const std::string pattern = random_pattern(random, 2);
    const auto regex = parse_regex(pattern, "regex");
    ASSERT_TRUE(regex.has_value()) << regex.error().message;
    const GrammarRef grammar = compile(regex_grammar(pattern, "regex"));
    ASSERT_NE(grammar, nullptr);
    const auto ebnf = user_grammar("root ::= " + to_ebnf(regex->branches[0].node), "grammar");
    const GrammarRef same = ebnf ? compile(ebnf) : grammar;  // some are too large
    num_ebnf += ebnf ? 1 : 0;
    ASSERT_NE(same, nullptr);
    for (const std::string& text : texts) {
      const bool expected = matches(*regex, text);
      ASSERT_EQ(grammar->matches(text), expected) << pattern << " \"" << text << '"';
      ASSERT_EQ(same->matches(text), expected)
          << to_ebnf(regex->branches[0].node) << " \"" << text << '"';
      num_matched += expected ? 1 : 0;
    }
  }
  EXPECT_GT(num_matched, 200);
  EXPECT_GT(num_ebnf, 30);
}

// Bytes come one by one from a vocabulary: those that no character has must not pass.
TEST(Regex, ClassesLetThroughCharactersAndNoOtherBytes) {
  const std::vector<std::string> ends = {"\x7F",   "\u0080", "\u07FF",     "\u0800",    "\uD7FF",
                                         "\uE000", "\uFFFF", "\U00010000", "\U0010FFFF"};
  const std::vector<std::string> broken = {
      "\xC1\xBF",         "\xE0\x80\x80",     "\xE0\x9F\xBF",     "\xED\xA0\x80",
      "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80"};
  for (const char* pattern : {".", "[^a]", "[^\"\\\\]", "\\S", "[\\u007F-\\u{10FFFF}]"}) {
    const GrammarRef grammar = compile(regex_grammar(pattern, "regex"));
    ASSERT_NE(grammar, nullptr);
    for (const std::string& text : ends) EXPECT_TRUE(grammar->matches(text)) << pattern << text;
    for (const std::string& text : broken) EXPECT_FALSE(grammar->matches(text)) << pattern << text;
  }
  for (const char* schema : {R"({"type": "string"})", R"({"type": "string", "maxLength": 4})",
                             R"({"type": "string", "pattern": "^[^b]$"})"}) {
    const GrammarRef grammar = compile_schema(schema);
    ASSERT_NE(grammar, nullptr);
    for (const std::string& text : ends) EXPECT_TRUE(grammar->matches('"' + text + '"')) << schema;
    for (const std::string& text : broken)
      EXPECT_FALSE(grammar->matches('"' + text + '"')) << schema;
  }
}

}  // namespace
}  // namespace tandem::text
