// What is not supported or wrong is refused when the template is loaded, by name and line.
#include <gtest/gtest.h>

#include "tests/unit/text/jinja_test_support.h"

namespace tandem::text::jinja {
namespace {

struct Refusal {
  const char* source;
  const char* message;
};

void check(const Refusal& refusal, base::ErrorCode code) {
  const auto parsed = Template::parse(refusal.source, "t");
  ASSERT_FALSE(parsed.has_value()) << refusal.source;
  EXPECT_EQ(parsed.error().message, refusal.message) << refusal.source;
  EXPECT_EQ(parsed.error().code, code) << refusal.source;
}

TEST(JinjaRefusal, UnsupportedByNameAndLine) {
  const Refusal refusals[] = {
      {"a\n{{ x | groupby('a') }}", "t:2: the filter 'groupby' is not supported"},
      {"{{ x is weird }}", "t:1: the test 'weird' is not supported"},
      {"\n\n{% include 'a' %}", "t:3: the tag 'include' is not supported"},
      {"{% call m() %}{% endcall %}", "t:1: the tag 'call' is not supported"},
      {"{{ cycler(1) }}", "t:1: the function 'cycler' is not supported"},
      {"{{ x.append(1) }}", "t:1: the method 'append' is not supported"},
      {"{{ x.__class__ }}", "t:1: the attribute '__class__' is not supported"},
      {"{% macro m() %}{{ caller() }}{% endmacro %}", "t:1: the name 'caller' is not supported"},
      {"{% for x in y recursive %}{% endfor %}", "t:1: recursive loops are not supported"},
      {"{{ range(*x) }}", "t:1: unpacking arguments with * is not supported"},
      {"{{ x[1, 2] }}", "t:1: a tuple as subscript is not supported"},
      {"{{ 0x1F }}", "t:1: only decimal numbers are supported"},
      {"{{ x | map('groupby') }}", "t:1: the filter 'groupby' is not supported"},
      {"{{ x | selectattr('a', 'weird') }}", "t:1: the test 'weird' is not supported"},
  };
  for (const Refusal& refusal : refusals) check(refusal, base::ErrorCode::kUnsupported);
}

TEST(JinjaRefusal, BrokenSource) {
  const Refusal refusals[] = {
      {"{{ x", "t:1: expected '}}', got the end of the template"},
      {"\n{% if x %}a", "t:2: expected 'endif', got the end of the template"},
      {"{# never closed", "t:1: missing end of comment tag"},
      {"{% raw %}a", "t:1: missing end of raw directive"},
      {"{{ 'a }}", "t:1: missing end of a string"},
      {"{{ ) }}", "t:1: unexpected ')'"},
      {"{{ (] }}", "t:1: unexpected ']', expected ')'"},
      {"{{ 1 + }}", "t:1: expected an expression, got the end of the tag"},
      {"{{ ; }}", "t:1: unexpected character ';'"},
      {"{% nonsense %}", "t:1: unknown tag 'nonsense'"},
      {"{% endif %}", "t:1: unknown tag 'endif'"},
      {"{% break %}", "t:1: 'break' outside of a loop"},
      {"{% set true = 1 %}", "t:1: cannot assign to 'true'"},
      {"{% set 1 = 1 %}", "t:1: expected a name to assign to, got '1'"},
      {"{% if x %}{% else %}{% elif y %}{% endif %}", "t:1: unknown tag 'elif'"},
      {"{{ f(a=1, a=2) }}", "t:1: the argument 'a' is given twice"},
      {"{{ f(a=1, 2) }}", "t:1: a positional argument follows a named one"},
      {"{{ '\\x4' }}", "t:1: truncated \\x escape"},
      {"{{ 01 }}", "t:1: number 01 has a leading zero"},
      {"\xFF", "t: expected UTF-8 text, got other bytes"},
  };
  for (const Refusal& refusal : refusals) check(refusal, base::ErrorCode::kInvalidArgument);
}

TEST(JinjaRefusal, ErrorsWhileRenderingSayTheLine) {
  EXPECT_EQ(render("\n{{ a.b }}").text, "t:2: 'a' is undefined");
  EXPECT_EQ(render("{{ 'x' + 1 }}").text, "t:1: can only concatenate str (not \"int\") to str");
  EXPECT_EQ(render("a\nb\n{{ raise_exception('no roles') }}").text, "t:3: no roles");
  EXPECT_EQ(render("{% set x.y = 1 %}").text,
            "t:1: cannot assign attribute 'y': 'x' is not a namespace");
  EXPECT_EQ(render("{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}").text,
            "t:1: macro 'm' takes not more than 1 argument(s)");
  EXPECT_EQ(render("{% for a, b in [[1, 2, 3]] %}{% endfor %}").text,
            "t:1: expected 2 values to unpack, got 3");
  EXPECT_EQ(render("{{ [1] | map('upper') }}").text,
            "t:1: a generator cannot be printed; add `| list` or `| join`");
}

TEST(JinjaRefusal, InternalsAreOutOfReach) {
  for (const char* source : {"{{ ''['__class__'] }}", "{{ {}['__class__'] }}",
                             "{{ [] | map(attribute='__class__') | list }}", "{{ [].__len__ }}"}) {
    const Rendered result = render(source);
    EXPECT_TRUE(!result.ok || result.text.empty() || result.text == "[]") << source << result.text;
  }
}

}  // namespace
}  // namespace tandem::text::jinja
