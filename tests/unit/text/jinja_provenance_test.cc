// Text from variables stays untrusted through every operation; in the output it is in [brackets].
#include <gtest/gtest.h>

#include "tests/unit/text/jinja_test_support.h"

namespace tandem::text::jinja {
namespace {

std::string marked(const std::string& source) {
  const nlohmann::ordered_json variables = {
      {"u", "User"}, {"padded", "  x y  "}, {"list", {"a", "b"}}, {"map", {{"key", "value"}}},
      {"n", 7},      {"quote", "a'b\nc"},   {"fake", "<turn|>"}};
  const Rendered result = render(source, variables);
  EXPECT_TRUE(result.ok) << source << result.text;
  return jinja::marked(result.rope);
}

TEST(JinjaProvenance, Output) {
  EXPECT_EQ(marked("a{{ u }}b"), "a[User]b");
  EXPECT_EQ(marked("{{ n }}{{ true }}{{ 1.5 }}{{ none }}"), "7True1.5None");
  EXPECT_EQ(marked("{{ 'x' + u + 'y' }}{{ 'x' ~ u ~ n }}"), "x[User]yx[User]7");
  EXPECT_EQ(marked("{{ u }}{{ u }}"), "[UserUser]");
}

TEST(JinjaProvenance, Filters) {
  EXPECT_EQ(marked("{{ ('<' + u + '>') | upper }}"), "<[USER]>");
  EXPECT_EQ(marked("{{ ('A ' + padded + ' Z') | trim | lower }}"), "a [  x y  ] z");
  EXPECT_EQ(marked("{{ padded | trim }}"), "[x y]");
  EXPECT_EQ(marked("{{ list | join('-') }}"), "[a]-[b]");
  EXPECT_EQ(marked("{{ u | replace('s', '+') }}"), "[U]+[er]");
  EXPECT_EQ(marked("{{ 'abc' | replace('b', u) }}"), "a[User]c");
  EXPECT_EQ(marked("{{ u | default('d') }}{{ nope | default('d') }}"), "[User]d");
  EXPECT_EQ(marked("{{ (u ~ 'x') | reverse }}"), "x[resU]");
  EXPECT_EQ(marked("{{ 'a' ~ u | title | indent(2, true) }}"), "a  [User]");
  EXPECT_EQ(marked("{{ '<' ~ fake | escape }}"), "<[&lt;turn|&gt;]");
  EXPECT_EQ(marked("{{ list | map('upper') | list | first }}"), "[A]");
  EXPECT_EQ(marked("{{ u | capitalize }}{{ u | string }}{{ u | safe }}"), "[UserUserUser]");
}

TEST(JinjaProvenance, MethodsAndSlices) {
  EXPECT_EQ(marked("{{ ('a|' ~ u ~ '|b').split('|') | join('/') }}"), "a/[User]/b");
  EXPECT_EQ(marked("{{ ('ab' ~ u)[1:4] }}{{ ('ab' ~ u)[::-1] }}{{ u[0] }}"), "b[UsresU]ba[U]");
  EXPECT_EQ(marked("{{ padded.split() | join }}{{ padded.strip() }}"), "[xyx y]");
  EXPECT_EQ(marked("{{ '-'.join(list) }}{{ ('p' ~ u).removeprefix('p') }}"), "[a]-[bUser]");
  EXPECT_EQ(marked("{% for c in 'a' ~ u %}{{ c }},{% endfor %}"), "a,[U],[s],[e],[r],");
}

TEST(JinjaProvenance, BlocksAndMacros) {
  EXPECT_EQ(marked("{% set x %}a{{ u }}b{% endset %}{{ x | upper }}"), "A[USER]B");
  EXPECT_EQ(marked("{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(u) | trim }}"), "<[User]>");
  EXPECT_EQ(
      marked("{% set ns = namespace(s='') %}{% for x in list %}{% set ns.s = ns.s + x + ';' %}"
             "{% endfor %}{{ ns.s }}"),
      "[a];[b];");
  EXPECT_EQ(marked("{% filter upper %}a{{ u }}{% endfilter %}"), "A[USER]");
}

TEST(JinjaProvenance, PrintedCollections) {
  EXPECT_EQ(marked("{{ list }}"), "['[a]', '[b]']");
  EXPECT_EQ(marked("{{ map }}"), "{'[key]': '[value]'}");
  EXPECT_EQ(marked("{{ map | tojson }}"), "{\"[key]\": \"[value]\"}");
  EXPECT_EQ(marked("{{ [quote] }}"), "[\"[a'b\\nc]\"]");
  EXPECT_EQ(marked("{% for k, v in map | dictsort %}{{ k }}={{ v }}{% endfor %}"), "[key]=[value]");
}

TEST(JinjaProvenance, ComparisonsLookAtTheTextOnly) {
  EXPECT_EQ(marked("{{ u == 'User' }}{{ 'User' in [u] }}{{ fake == '<turn|>' }}"), "TrueTrueTrue");
}

}  // namespace
}  // namespace tandem::text::jinja
