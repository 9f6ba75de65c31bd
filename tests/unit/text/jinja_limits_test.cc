// Hostile templates end by fuel, depth or size; counted in fuel, so that no clock is involved.
#include <gtest/gtest.h>

#include "tests/unit/text/jinja_test_support.h"

namespace tandem::text::jinja {
namespace {

std::string repeat(const std::string& text, size_t count) {
  std::string result;
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

void expect_refused(const std::string& source, const std::string& reason) {
  const Rendered result = render(source);
  EXPECT_FALSE(result.ok) << source.substr(0, 100);
  EXPECT_NE(result.text.find(reason), std::string::npos) << source.substr(0, 100) << result.text;
  // One operation may overdraw, by no more than it costs to notice: 4 MiB of text, element by
  // element.
  EXPECT_LE(result.fuel_used, kDefaultFuel + static_cast<int64_t>(kMaxTextBytes) + 100'000);
}

constexpr const char* kSteps = "takes too many steps";

TEST(JinjaLimits, LoopsRunOutOfFuel) {
  expect_refused(
      "{% for a in range(1000000) %}{% for b in range(1000000) %}{% endfor %}{% endfor %}", kSteps);
  expect_refused("{% for i in range(1000000) %}{% set x = namespace(a=1) %}{% endfor %}", kSteps);
  expect_refused(
      "{% for i in range(1000000) %}{{ ('ab' * 100000) | replace('a', 'b') | length }}"
      "{% endfor %}",
      kSteps);
  expect_refused("{% for i in range(100000) %}{% set x = ('a b ' * 1000).split() %}{% endfor %}",
                 kSteps);
  expect_refused(
      "{% set s = 'a' * 1000000 %}{% for i in range(1000000) %}{% set x = s[i] %}{% endfor %}",
      kSteps);
  expect_refused(
      "{% set l = range(100000) | list %}{{ l | map('string') | unique | list | length }}", kSteps);
}

TEST(JinjaLimits, SharedListsDoNotPrintOrCompareForEver) {
  const std::string build =
      "{% set ns = namespace(l=[1]) %}{% for i in range(200) %}{% set ns.l = [ns.l, ns.l] %}"
      "{% endfor %}";
  expect_refused(build + "{{ ns.l }}", kSteps);
  expect_refused(build + "{{ ns.l | tojson }}", kSteps);
  expect_refused(
      "{% set a = namespace(l=[1]) %}{% set b = namespace(l=[1]) %}"
      "{% for i in range(200) %}{% set a.l = [a.l, a.l] %}{% set b.l = [b.l, b.l] %}"
      "{% endfor %}{{ a.l == b.l }}",
      kSteps);
}

TEST(JinjaLimits, TextAndListsHaveAnEnd) {
  expect_refused(
      "{% set ns = namespace(s='0123456789abcdef') %}{% for i in range(100) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "grows past 4 MiB");
  expect_refused("{% for i in range(1000000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
                 "grows past 4 MiB");
  expect_refused("{{ 'a' * 100000000 }}", "grows past its limit");
  expect_refused("{{ [1] * 100000000 }}", "grows past its limit");
  expect_refused("{{ range(1000001) }}", "at most 1000000 are allowed");
  expect_refused("{{ 9 ** 9 ** 9 }}", "grows past 127 bits");
  expect_refused(
      "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}"
      "{% set ns.l = ns.l + ns.l %}{% endfor %}",
      kSteps);
}

TEST(JinjaLimits, DepthOfCallsAndValues) {
  expect_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "levels deep");
  expect_refused("{% macro m(n) %}{{ m(n+1) }}{{ m(n+1) }}{% endmacro %}{{ m(0) }}", "levels deep");
  expect_refused(
      "{% set ns = namespace(l=[]) %}{% for i in range(300) %}{% set ns.l = [ns.l] %}"
      "{% endfor %}",
      "nests too deeply");
  // Deep macros with deep bodies: bounded together, so that no stack overflows.
  const std::string deep = repeat("{% if true %}", 200) + "{{ m() }}" + repeat("{% endif %}", 200);
  expect_refused("{% macro m() %}" + deep + "{% endmacro %}{{ m() }}", "nests too deeply");
}

TEST(JinjaLimits, NestedSourceIsRefusedWhileParsing) {
  constexpr size_t kMany = 30'000;
  for (const char* open : {"(", "[", "{1:", "-", "not ", "x[", "f(", "1 if 1 else "}) {
    const Rendered result = render("{{ " + repeat(open, kMany) + "1");
    EXPECT_FALSE(result.ok) << open;
  }
  for (const char* link : {"+1", ".a", "|upper", "**1", " and 1", "*1"}) {
    const Rendered result = render("{{ 1" + repeat(link, kMany) + " }}");
    EXPECT_NE(result.text.find("at most 256 levels"), std::string::npos) << link << result.text;
  }
  EXPECT_NE(render(repeat("{% if 1 %}", kMany)).text.find("at most 256"), std::string::npos);
  EXPECT_NE(render(repeat("{% for x in y %}", kMany)).text.find("at most 256"), std::string::npos);
  EXPECT_NE(render(std::string(kMaxSourceBytes + 1, 'a')).text.find("bytes of template"),
            std::string::npos);
}

TEST(JinjaLimits, SearchIsLinear) {
  // Every position is a near match: quadratic for a plain search, and far beyond any fuel.
  const Rendered result = render(
      "{% set s = 'a' * 100000 %}{{ (s ~ 'b') in (s ~ s) }}{{ (s ~ s).find(s ~ 'b') }}"
      "{{ (s ~ s).rfind('b' ~ s) }}{{ (s ~ s).split(s ~ 'b') | length }}");
  EXPECT_EQ(result.text, "False-1-11");
}

TEST(JinjaLimits, NamespaceCyclesAreNoLeak) {
  EXPECT_EQ(render("{% set a = namespace() %}{% set a.me = a %}{{ a.me.me is defined }}").text,
            "True");
}

TEST(JinjaLimits, LongConversationsFit) {
  const auto parsed = Template::parse(
      read_test_file("data/templates/google-gemma-4-12B-it.chat_template.jinja"), "t");
  ASSERT_TRUE(parsed.has_value());
  auto messages = nlohmann::ordered_json::array();
  for (int i = 0; i < 400; ++i) {
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", "hello"}});
  }
  int64_t fuel_used = 0;
  const auto result = parsed->render({{"messages", from_json(messages, false)}}, {}, fuel_used);
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_LT(fuel_used, kDefaultFuel / 2);
}

}  // namespace
}  // namespace tandem::text::jinja
