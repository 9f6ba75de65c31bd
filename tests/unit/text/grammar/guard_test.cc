// What cannot be held to is refused by name, and nothing takes long.
#include <array>

#include "base/clock.h"
#include "tests/unit/text/grammar/support.h"

namespace tandem::text {
namespace {

TEST(SchemaGuard, NamesTheKeywordByItsPointer) {
  constexpr std::array<std::pair<const char*, const char*>, 16> kCases = {{
      {R"({"not": {}})", "schema#/not:"},
      {R"({"if": {}, "then": {}})", "schema#/if:"},
      {R"({"properties": {"a/b": {"contains": {}}}})", "schema#/properties/a~1b/contains:"},
      {R"({"type": "array", "uniqueItems": true})", "schema#/uniqueItems:"},
      {R"({"multipleOf": 0.5})", "schema#/multipleOf:"},
      {R"({"dependentSchemas": {}})", "schema#/dependentSchemas:"},
      {R"({"dependentRequired": {}})", "schema#/dependentRequired:"},
      {R"({"unevaluatedProperties": false})", "schema#/unevaluatedProperties:"},
      {R"({"unevaluatedItems": false})", "schema#/unevaluatedItems:"},
      {R"({"patternProperties": {"a": {}}})", "schema#/patternProperties:"},
      {R"({"propertyNames": {"maxLength": 3}})", "schema#/propertyNames:"},
      {R"({"items": [{}]})", "schema#/items:"},
      {R"({"$ref": "https://example.com/x"})", "schema#/$ref:"},
      {R"({"format": "idn-email"})", "schema#/format:"},
      {R"({"madeUp": 1})", "schema#/madeUp:"},
      {R"({"anyOf": [{}, {"$dynamicRef": "#x"}]})", "schema#/anyOf/1/$dynamicRef:"},
  }};
  for (const auto& [schema, start] : kCases)
    EXPECT_TRUE(schema_refusal(schema).starts_with(start)) << schema_refusal(schema);
}

TEST(SchemaGuard, RefusesWhatNoValueSatisfies) {
  for (const char* schema :
       {R"(false)", R"({"type": []})", R"({"minimum": 3, "maximum": 2})",
        R"({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2})",
        R"({"minLength": 3, "maxLength": 2})", R"({"$ref": "#"})",
        R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
        R"({"enum": ["a"], "type": "integer"})",
        R"({"anyOf": [{"$ref": "#/anyOf/1"}, {"$ref": "#/anyOf/0"}]})"})
    EXPECT_NE(schema_refusal(schema), "accepted") << schema;
}

TEST(SchemaGuard, MalformedSchemasAreRefusedNotCrashedOver) {
  for (const char* schema : {R"([])",
                             R"("x")",
                             R"(3)",
                             R"(null)",
                             R"({"type": 3})",
                             R"({"type": "text"})",
                             R"({"properties": []})",
                             R"({"properties": {"a": 3}})",
                             R"({"required": "a"})",
                             R"({"required": [1]})",
                             R"({"enum": []})",
                             R"({"enum": 3})",
                             R"({"anyOf": {}})",
                             R"({"anyOf": [3]})",
                             R"({"minLength": -1})",
                             R"({"minLength": "1"})",
                             R"({"minItems": 1.5})",
                             R"({"maxItems": 1e30})",
                             R"({"minimum": "1"})",
                             R"({"pattern": 3})",
                             R"({"pattern": "("})",
                             R"({"format": 3})",
                             R"({"$ref": 3})",
                             R"({"$ref": "#/%zz"})",
                             R"({"allOf": [{"$ref": "#/allOf/0"}]})",
                             R"({"allOf": [{"properties": {"a": 1}}, {"properties": {"a": 2}}]})",
                             R"({"additionalProperties": 3})",
                             R"({"items": 3})",
                             R"({"prefixItems": {}})"})
    EXPECT_NE(schema_refusal(schema), "accepted") << schema;
}

TEST(SchemaGuard, OneOfMustExcludeEachOther) {
  EXPECT_TRUE(schema_refusal(R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})")
                  .starts_with("schema#/oneOf:"));
  EXPECT_TRUE(schema_refusal(R"({"oneOf": [{"properties": {"a": {}}}, {"type": "string"}]})")
                  .starts_with("schema#/oneOf:"));
  EXPECT_EQ(schema_refusal(R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})"), "accepted");
  EXPECT_TRUE(schema_refusal(
                  R"({"oneOf": [{"const": [{"a": 1, "b": 2}]}, {"const": [{"b": 2.0, "a": 1}]}]})")
                  .starts_with("schema#/oneOf:"));
  EXPECT_EQ(schema_refusal(R"({"oneOf": [{"const": {"a": 1}}, {"const": {"a": 2}}]})"), "accepted");
  EXPECT_EQ(schema_refusal(R"({"oneOf": [
      {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]},
      {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]}]})"),
            "accepted");
}

std::string nested(const std::string& open, const std::string& inner, const std::string& close,
                   int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  text += inner;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

// Every one of these ran for minutes, or out of stack, in some engine.
TEST(GrammarGuard, BombsAreRefusedQuickly) {
  const base::Stopwatch clock;
  const auto refuses = [](const base::Result<GrammarText>& text, const char* where) {
    ASSERT_FALSE(text.has_value()) << where;
    EXPECT_TRUE(text.error().message.starts_with(where)) << text.error().message;
  };
  for (const std::string& pattern :
       {std::string("(((a{0,100}){0,100}){0,100}){0,100}"), std::string(".{0,5000}"),
        nested("(", "a", ")", 2000), std::string(5000, 'a'), std::string("a{99999999999}"),
        std::string("(?=a)b"), std::string("\\bword"), std::string("(a)\\1"), std::string("\\p{L}"),
        std::string("a**"), std::string("[z-a]"), std::string("a\\"), std::string("\\uD83D\\u0041"),
        std::string("[\\uD83D\\uD83D]"), std::string("a{,3}"), std::string("a{2}{3}"),
        std::string("({2})")})
    refuses(regex_grammar(pattern, "regex"), "regex");
  for (const std::string& ebnf :
       {"root ::= " + nested("(", "\"a\"", ")", 30000), std::string("root ::= [^a]{0,100000}"),
        std::string("root ::= (([^a]{0,90}){0,90}){0,90}"), std::string("root ::= Regex(\"a\")"),
        std::string("root[max_tokens=3] ::= \"a\""), std::string("root ::= ((\"a\")"),
        std::string("root ::= \"a\")"), std::string("start: \"a\""), std::string(70000, 'a'),
        std::string()})
    refuses(user_grammar(ebnf, "grammar"), "grammar");
  refuses(choice_grammar({}, "choice"), "choice");
  refuses(choice_grammar({""}, "choice"), "choice");
  refuses(choice_grammar(std::vector<std::string>(2000, "a"), "choice"), "choice");
  std::string deep = "true";
  for (int i = 0; i < 200; ++i) deep = R"({"items": )" + deep + "}";
  EXPECT_NE(schema_refusal(deep.c_str()), "accepted");
  Json wide = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 5000; ++i)
    wide["properties"][fmt::format("p{}", i)] = {{"type", "string"}, {"maxLength", i + 1}};
  refuses(json_schema_grammar(wide, "schema"), "schema");
  EXPECT_LT(clock.seconds(), 20);  // a second or so on an idle machine
}

TEST(GrammarGuard, WhatTheLibraryRefusesIsAnError) {
  for (const char* ebnf : {"root ::= missing", "other ::= \"a\"", "root ::= \"a", "root ::= [a",
                           "root ::= \"a\"\nroot ::= \"b\"", "root ::= | ::="}) {
    const auto text = user_grammar(ebnf, "grammar");
    if (!text) continue;
    const auto grammar = demo_compiler().compile(text->ebnf, text->root, "grammar");
    ASSERT_FALSE(grammar.has_value()) << ebnf;
    EXPECT_TRUE(grammar.error().message.starts_with("grammar: expected"))
        << grammar.error().message;
    EXPECT_EQ(grammar.error().message.find(".cc"), std::string::npos) << grammar.error().message;
  }
}

}  // namespace
}  // namespace tandem::text
