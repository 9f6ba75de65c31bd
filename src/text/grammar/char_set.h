// A set of Unicode characters, as ranges. Surrogates are no characters: no set has them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

class CharSet {
 public:
  struct Range {
    uint32_t first = 0;
    uint32_t last = 0;
    bool operator==(const Range&) const = default;
  };

  CharSet() = default;
  explicit CharSet(std::vector<Range> ranges);
  static CharSet all();
  static CharSet of(std::string_view ascii);

  CharSet operator|(const CharSet& other) const;
  CharSet operator&(const CharSet& other) const;
  CharSet operator-(const CharSet& other) const;

  bool has(uint32_t c) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<Range>& ranges() const { return ranges_; }  // sorted, apart from each other
  bool operator==(const CharSet&) const = default;

  // `[...]`, or a group of such, in the notation inside Regex("..."); the set must not be empty.
  std::string pattern() const;

 private:
  CharSet inverse() const;

  std::vector<Range> ranges_;
};

// Characters that stand for themselves in a JSON string.
const CharSet& json_plain();

// A character in the notation inside Regex("...").
std::string pattern_char(uint32_t c);
// A text as a literal of a grammar, quotes included.
std::string ebnf_literal(std::string_view utf8);

}  // namespace tandem::text
