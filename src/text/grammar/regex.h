// Regular expressions of schemas and requests: parsed here, so that what is not understood is
// refused, and written as a pattern whose meaning is beyond doubt.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/grammar/char_set.h"
#include "text/grammar/ebnf.h"

namespace tandem::text {

struct RegexNode {
  enum class Kind { kSet, kSequence, kChoice, kRepeat };
  Kind kind = Kind::kSequence;
  CharSet set;                   // kSet: one character
  std::vector<RegexNode> parts;  // kRepeat: one
  int min = 0;                   // kRepeat
  int max = -1;                  // kRepeat; -1: no bound
};

// The alternatives at the top, each with its own anchors.
struct Regex {
  struct Branch {
    RegexNode node;
    bool from_start = false;  // `^` in front
    bool to_end = false;      // `$` behind
  };
  std::vector<Branch> branches;
};

// ECMA-262 with the `u` flag, less what a grammar cannot follow: look-around, back references, word
// boundaries, Unicode properties, anchors inside. Refused by name, the message begins with `where`.
base::Result<Regex> parse_regex(std::string_view pattern, const std::string& where);

enum class RegexForm {
  kText,        // characters stand for themselves
  kJsonString,  // what stands between the quotes of a JSON string whose value matches
};
enum class RegexMatch {
  kWhole,   // anchors change nothing
  kSearch,  // anywhere in the text, as JSON Schema has it
};

// An element of a grammar, paid for in `ebnf`. Refuses what would be too large to follow.
base::Result<std::string> regex_ebnf(Ebnf& ebnf, const Regex& regex, RegexForm form,
                                     RegexMatch match, const std::string& where);

// What preparing an automaton costs: it has a state per character of the pattern, and at each the
// vocabulary is looked at as far as its tokens go on. One of many characters is dear.
inline constexpr int64_t kWideCost = 16;

// `set` as it may stand in a JSON string, in the notation inside Regex("..."): plain or escaped.
// Empty when no character of it may.
std::string json_set_pattern(const CharSet& set);
// Any character of a string: in JSON, \u escapes included, and in the call syntax, where there are
// no escapes and no controls but tab and line ends.
const std::string& json_char_pattern();
const std::string& call_char_pattern();
// `pattern` from `min` to `max` times (-1: no bound), written out: with xgrammar 0.2.8 `(...)?` and
// bounds within bounds let through what they should not, while `|`, `*` and `+` are right
// (tests/unit/text/grammar/regex_test.cc). Bounds of single classes are right as well.
std::string repeat_pattern(const std::string& pattern, int64_t min, int64_t max);
// An element of a grammar for `pattern`, which is in the notation inside Regex("...").
std::string pattern_ebnf(const std::string& pattern);

}  // namespace tandem::text
