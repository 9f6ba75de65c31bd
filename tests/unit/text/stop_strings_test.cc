#include "text/stop_strings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "text/utf8.h"

namespace tandem::text {
namespace {

using Strings = std::vector<std::string>;

TEST(StopStrings, HoldsBackWhatCouldBecomeAStop) {
  StopStringMatcher matcher({"STOP", "END"}, false);
  EXPECT_EQ(matcher.push("hello S").text, "hello ");
  EXPECT_EQ(matcher.push("T").text, "");
  EXPECT_EQ(matcher.push("E").text, "ST");
  EXPECT_EQ(matcher.push("NX").text, "ENX");
  EXPECT_EQ(matcher.push("a S").text, "a ");
  const auto output = matcher.push("TOP and more");
  EXPECT_TRUE(output.stopped);
  EXPECT_EQ(output.text, "");
  EXPECT_EQ(output.stop_text, "STOP");
  EXPECT_TRUE(matcher.push("more").stopped);
  EXPECT_EQ(matcher.push("more").text, "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopStrings, IncludedWhenAskedFor) {
  StopStringMatcher matcher({"\n\n"}, true);
  EXPECT_EQ(matcher.push("a\n").text, "a");
  EXPECT_EQ(matcher.push("\nb").text, "\n\n");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopStrings, OnesThatMayNotStopAreText) {
  StopStringMatcher matcher({"ab", "bc"}, false);
  EXPECT_EQ(matcher.push("xaby", false).text, "xaby");
  EXPECT_EQ(matcher.push("ab", false).text, "");  // the b may begin the other one
  EXPECT_EQ(matcher.push("x").text, "abx");
  EXPECT_EQ(matcher.push("b", false).text, "");
  EXPECT_EQ(matcher.push("c").stop_text, "bc");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopStrings, FinishGivesWhatWasHeld) {
  StopStringMatcher matcher({"abcd"}, false);
  EXPECT_EQ(matcher.push("xabc").text, "x");
  EXPECT_EQ(matcher.finish(), "abc");
  EXPECT_EQ(matcher.finish(), "");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopStrings, EarliestEndWinsThenTheLongest) {
  EXPECT_EQ(StopStringMatcher({"b", "abc", "ab"}, false).push("xabc").text, "x");
  EXPECT_EQ(StopStringMatcher({"b", "abc", "ab"}, false).push("xabc").stop_text, "ab");
  EXPECT_EQ(StopStringMatcher({"bcd", "c"}, false).push("abcd").text, "ab");
  // The stop is a suffix of another stop's beginning.
  EXPECT_EQ(StopStringMatcher({"aab!", "b"}, false).push("aab").text, "aa");
}

TEST(StopStrings, NoStopsAndEmptyStops) {
  StopStringMatcher none({}, false);
  EXPECT_EQ(none.push("anything").text, "anything");
  StopStringMatcher empty({"", ""}, false);
  EXPECT_EQ(empty.push("anything").text, "anything");
  EXPECT_FALSE(empty.stopped());
}

TEST(StopStrings, CopiesAreIndependent) {
  StopStringMatcher matcher({"xyz"}, false);
  matcher.push("xy");
  StopStringMatcher copy = matcher;
  EXPECT_TRUE(copy.push("z").stopped);
  EXPECT_EQ(matcher.push("y").text, "xyy");
}

// What the whole text gives: cut at the stop that ends first, the longest of those.
std::pair<std::string, bool> expected(const std::string& text, const Strings& stops, bool include) {
  for (size_t end = 0; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (!stop.empty() && stop.size() <= end &&
          text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, include ? end : end - longest), true};
  }
  return {text, false};
}

TEST(StopStrings, AnyGroupingGivesTheSameTextAndWholeCharacters) {
  std::mt19937 random(3);
  const Strings alphabet = {"a", "b", "é", "叫", "😀", " "};
  const auto random_text = [&](size_t length) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text += alphabet[random() % (2 + random() % 5)];
    return text;
  };
  for (int round = 0; round < 10000; ++round) {
    Strings stops;
    for (auto i = random() % 5; i > 0; --i) stops.push_back(random_text(random() % 7));
    const bool include = random() % 2 == 0;
    StopStringMatcher matcher(stops, include);
    std::string whole, joined;
    while (whole.size() < 60 && !matcher.stopped()) {
      const std::string delta = random_text(random() % 4);
      whole += delta;
      const auto output = matcher.push(delta);
      ASSERT_TRUE(is_valid_utf8(output.text));
      joined += output.text;
      // Nothing is held that could be shown: what is missing begins some stop string.
      if (!output.stopped && joined.size() < whole.size()) {
        const std::string held = whole.substr(joined.size());
        ASSERT_TRUE(std::ranges::any_of(stops, [&](const auto& s) { return s.starts_with(held); }));
      }
    }
    joined += matcher.finish();
    const auto [text, stopped] = expected(whole, stops, include);
    ASSERT_EQ(joined, text) << whole;
    ASSERT_EQ(matcher.stopped(), stopped);
  }
}

}  // namespace
}  // namespace tandem::text
