#include "text/grammar/char_set.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace tandem::text {
namespace {

constexpr uint32_t kLastChar = 0x10FFFF;
constexpr CharSet::Range kSurrogates = {0xD800, 0xDFFF};

// The first characters that UTF-8 writes with three and with four bytes.
constexpr uint32_t kFirstOfThree = 0x800, kFirstOfFour = 0x10000;

std::string class_pattern(const CharSet& set) {
  std::string text = "[";
  for (const CharSet::Range& range : set.ranges()) {
    text += pattern_char(range.first);
    if (range.last == range.first) continue;
    if (range.last > range.first + 1) text += '-';
    text += pattern_char(range.last);
  }
  return text + "]";
}

bool is_plain_ascii(uint32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

}  // namespace

CharSet::CharSet(std::vector<Range> ranges) {
  std::ranges::sort(ranges, {}, &Range::first);
  for (const Range& range : ranges) {
    TANDEM_CHECK_LE(range.first, range.last);
    TANDEM_CHECK_LE(range.last, kLastChar);
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1)
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    else
      ranges_.push_back(range);
  }
  std::vector<Range> kept;
  for (const Range& range : ranges_) {
    if (range.first < kSurrogates.first)
      kept.push_back({range.first, std::min(range.last, kSurrogates.first - 1)});
    if (range.last > kSurrogates.last)
      kept.push_back({std::max(range.first, kSurrogates.last + 1), range.last});
  }
  ranges_ = std::move(kept);
}

CharSet CharSet::all() {
  return CharSet({{0, kLastChar}});
}

CharSet CharSet::of(std::string_view ascii) {
  std::vector<Range> ranges;
  for (const char c : ascii) {
    const auto code = static_cast<uint32_t>(static_cast<unsigned char>(c));
    ranges.push_back({code, code});
  }
  return CharSet(std::move(ranges));
}

CharSet CharSet::operator|(const CharSet& other) const {
  std::vector<Range> both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return CharSet(std::move(both));
}

CharSet CharSet::operator&(const CharSet& other) const {
  std::vector<Range> common;
  for (const Range& a : ranges_) {
    for (const Range& b : other.ranges_) {
      const uint32_t first = std::max(a.first, b.first);
      const uint32_t last = std::min(a.last, b.last);
      if (first <= last) common.push_back({first, last});
    }
  }
  return CharSet(std::move(common));
}

CharSet CharSet::operator-(const CharSet& other) const {
  return *this & other.inverse();
}

CharSet CharSet::inverse() const {
  std::vector<Range> gaps;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastChar) gaps.push_back({next, kLastChar});
  return CharSet(std::move(gaps));
}

bool CharSet::has(uint32_t c) const {
  return std::ranges::any_of(ranges_, [c](const Range& r) { return r.first <= c && c <= r.last; });
}

// With xgrammar 0.2.8 a range that goes on from two to three bytes, or from three to four, lets
// through what is no UTF-8 (E0 80 80, F0 80 80 80). Ranges of one class that touch are one range
// there, so every second length has a class of its own.
std::string CharSet::pattern() const {
  TANDEM_CHECK(!empty());
  const auto crosses = [this](uint32_t first) { return has(first - 1) && has(first); };
  if (!crosses(kFirstOfThree) && !crosses(kFirstOfFour)) return class_pattern(*this);
  static const CharSet kTwoOrFour({{0x80, kFirstOfThree - 1}, {kFirstOfFour, kLastChar}});
  return fmt::format("(?:{}|{})", class_pattern(*this - kTwoOrFour),
                     class_pattern(*this & kTwoOrFour));
}

const CharSet& json_plain() {
  static const CharSet kPlain = CharSet({{0x20, kLastChar}}) - CharSet::of("\"\\");
  return kPlain;
}

std::string pattern_char(uint32_t c) {
  if (is_plain_ascii(c)) return std::string(1, static_cast<char>(c));
  return fmt::format("\\u{{{:X}}}", c);
}

std::string ebnf_literal(std::string_view utf8) {
  std::string text = "\"";
  for (const char c : utf8) {
    const auto byte = static_cast<unsigned char>(c);
    // Whole characters beyond ASCII pass as they are.
    if (byte >= 0x80 || (byte >= 0x20 && c != '"' && c != '\\'))
      text += c;
    else
      text += fmt::format("\\u{:04X}", byte);
  }
  return text + "\"";
}

}  // namespace tandem::text
