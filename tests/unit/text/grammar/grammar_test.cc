// What grammars let through: numbers between bounds, strings, objects, calls, thoughts; and that
// the masks say the same as the matcher.
#include <cmath>

#include "tests/unit/text/grammar/support.h"
#include "text/output_parser.h"

namespace tandem::text {
namespace {

void expect_matches(const GrammarRef& grammar, const std::vector<std::string>& yes,
                    const std::vector<std::string>& no) {
  ASSERT_NE(grammar, nullptr);
  for (const std::string& text : yes) EXPECT_TRUE(grammar->matches(text)) << text;
  for (const std::string& text : no) EXPECT_FALSE(grammar->matches(text)) << text;
}

// Against arithmetic: every number of a small grid, for many pairs of bounds.
TEST(Numbers, LieBetweenTheirBounds) {
  const std::vector<std::string> spellings = [] {
    std::vector<std::string> result;
    for (int whole = 0; whole <= 12; ++whole)
      for (const char* fraction : {"", ".0", ".05", ".1", ".125", ".5", ".50", ".95", ".999"})
        for (const char* sign : {"", "-"})
          result.push_back(fmt::format("{}{}{}", sign, whole, fraction));
    for (const char* text : {"99", "100", "101", "-99", "-100", "1000000"})
      result.emplace_back(text);
    return result;
  }();
  const std::vector<double> bounds = {-100, -10.5, -3,    -1, -0.05, 0,  0.05,
                                      0.1,  1,     2.125, 9,  10,    100};
  for (const bool exclusive : {false, true}) {
    for (const double low : bounds) {
      for (const double high : bounds) {
        const Json schema = {{"type", "number"},
                             {exclusive ? "exclusiveMinimum" : "minimum", low},
                             {exclusive ? "exclusiveMaximum" : "maximum", high}};
        const auto text = json_schema_grammar(schema, "schema");
        const bool possible = exclusive ? low < high : low <= high;
        ASSERT_EQ(text.has_value(), possible) << schema.dump();
        if (!text) continue;
        const GrammarRef grammar = compile(text);
        ASSERT_NE(grammar, nullptr);
        for (const std::string& spelling : spellings) {
          const double value = std::stod(spelling);
          const bool inside =
              exclusive ? low < value && value < high : low <= value && value <= high;
          // Minus zero is left out; a point needs digits that change nothing only where zeros may
          // stand behind a bound.
          if (value == 0 && spelling.front() == '-') continue;
          EXPECT_EQ(grammar->matches(spelling), inside) << schema.dump() << " " << spelling;
        }
      }
    }
  }
}

TEST(Numbers, IntegersLieBetweenTheirBounds) {
  for (const auto& [low, high] : std::vector<std::pair<int, int>>{
           {0, 0}, {0, 9}, {3, 17}, {-5, 5}, {-120, -7}, {99, 101}, {1, 1000}, {-1, 1}}) {
    const Json schema = {{"type", "integer"}, {"minimum", low}, {"maximum", high}};
    const GrammarRef grammar = compile(json_schema_grammar(schema, "schema"));
    ASSERT_NE(grammar, nullptr);
    for (int value = -130; value <= 1005; ++value)
      EXPECT_EQ(grammar->matches(std::to_string(value)), low <= value && value <= high) << value;
    expect_matches(grammar, {}, {"", "-", "01", "1.0", "1e1", "+1"});
  }
}

TEST(Strings, LengthsCountCharactersOfTheValue) {
  const GrammarRef grammar =
      compile_schema(R"({"type": "string", "minLength": 2, "maxLength": 4})");
  expect_matches(grammar,
                 {R"("ab")", R"("äö")", R"("abcd")", R"("\n\"")", R"("\u00e9x")", R"("😀😀")",
                  R"("\ud83d\ude00x")"},
                 {R"("")", R"("a")", R"("abcde")", R"("\ud83d\ude00")", R"("\ud83d")", R"("\u12")",
                  R"("a"b")", "\"a\nb\"", R"(ab)"});
}

TEST(Strings, PatternsSearchAndMeanTheValue) {
  expect_matches(compile_schema(R"({"type": "string", "pattern": "a+b"})"),
                 {R"("ab")", R"("xaab ")", R"("\"ab\n")"}, {R"("a")", R"("b")", R"("")"});
  expect_matches(compile_schema(R"({"type": "string", "pattern": "^[^a]$"})"),
                 {R"("b")", R"("\"")", R"("\\")", R"("\n")", R"("é")"},
                 {R"("a")", R"(""")", R"("bb")"});
  expect_matches(compile_schema(R"({"pattern": "^(\\d{3}-)?\\d{4}$"})"),
                 {R"("1234")", R"("123-4567")"}, {R"("12")", R"("123-45678")"});
  expect_matches(compile_schema(R"({"pattern": "^a|b$"})"), {R"("ax")", R"("xb")"}, {R"("xa")"});
}

TEST(Objects, HaveTheirPropertiesInOrder) {
  const GrammarRef grammar = compile_schema(R"({"type": "object", "properties": {
      "z": {"type": "integer"}, "a": {"type": "boolean"}, "m": {"type": "null"}},
      "required": ["z", "m"], "additionalProperties": false})");
  expect_matches(
      grammar,
      {R"({"z":1,"a":true,"m":null})", R"({"z":1,"m":null})", "{\n  \"z\": 1,\n  \"m\": null\n}"},
      {R"({"a":true,"z":1,"m":null})", R"({"z":1})", R"({"z":1,"m":null,"x":1})",
       R"({"z":1,"m":null,})", R"({})", R"({"z":"1","m":null})"});
}

TEST(Objects, OtherNamesAreOther) {
  const GrammarRef grammar = compile_schema(R"({"type": "object", "properties": {
      "ab": {"type": "integer"}, "abc": {"type": "integer"}},
      "additionalProperties": {"type": "string"}})");
  expect_matches(grammar, {R"({})", R"({"ab":1})", R"({"x":"y"})", R"({"ab":1,"a":"","abcd":""})"},
                 {R"({"ab":"1"})", R"({"abc":"x"})", R"({"x":1})", R"({"":""})"});
}

TEST(Objects, RecursionAndReferences) {
  const GrammarRef grammar = compile_schema(R"({"$ref": "#/$defs/node", "$defs": {"node": {
      "type": "object", "properties": {"v": {"type": "integer"},
      "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}], "default": null}},
      "required": ["v", "next"]}}})");
  expect_matches(grammar, {R"({"v":1,"next":null})", R"({"v":1,"next":{"v":2,"next":null}})"},
                 {R"({"v":1})", R"({"v":1,"next":{}})", R"({"v":1,"next":1})"});
}

TEST(Content, RegexChoiceAndGrammar) {
  expect_matches(compile(regex_grammar("^(yes|no)!?$", "regex")), {"yes", "no!"},
                 {"yes!!", "", " no"});
  // Braces that count nothing stand for themselves.
  expect_matches(compile(regex_grammar("\\uD83D\\uDE00|{x}{}|a{1,2,3}?", "regex")),
                 {"😀", "{x}{}", "a{1,2,3"}, {"\xF0\x91\xA1\x81", "a", "{x}"});
  expect_matches(compile(choice_grammar({"alpha", "alphabet", "β \"q\""}, "choice")),
                 {"alpha", "alphabet", "β \"q\""}, {"alphabe", "beta", ""});
  expect_matches(
      compile(user_grammar("root ::= item (\",\" item)*\nitem ::= [0-9]{1,3} # digits", "g")),
      {"1", "12,345"}, {"", "1234", "1,"});
  // \x has two digits.
  expect_matches(compile(user_grammar(R"(root ::= "\x41b" [\x30-\x39a]+ "\\x41b")", "g")),
                 {R"(Ab0a9\x41b)"}, {R"(Л0\x41b)", R"(Ab0A\x41b)"});
  expect_matches(compile(json_object_grammar()), {R"({})", R"({"a": [1, {"b": null}], "c": "x"})"},
                 {R"([])", R"("a")", R"({"a"})"});
}

// The library prepares masks apart from its matcher: they must agree on every token.
TEST(Masks, SayWhatTheMatcherSays) {
  const GrammarRef grammar = compile_schema(R"({"type": "object", "properties": {
      "name": {"type": "string", "maxLength": 12}, "n": {"type": "integer", "minimum": 0, "maximum": 42},
      "when": {"format": "date"}}, "required": ["name", "n", "when"]})");
  ASSERT_NE(grammar, nullptr);
  const std::string text = R"({"name": "a\u00e9b","n": 41, "when": "2024-02-28"})";
  ASSERT_TRUE(grammar->matches(text));
  const auto constraint = grammar->start();
  for (const int32_t id : demo_tokenizer().encode(text, SpecialTokens::kDisabled)) {
    const auto allowed = constraint->allowed();
    const std::vector<uint32_t> mask(allowed.begin(), allowed.end());
    ASSERT_FALSE(mask.empty());
    for (int32_t other = 0; other < demo_tokenizer().vocab_size(); ++other) {
      if (demo_tokenizer().is_special(other)) {
        EXPECT_FALSE(allows(mask, other)) << other;
        continue;
      }
      const bool accepted = constraint->accept(other);
      if (accepted) constraint->rollback(1);
      EXPECT_EQ(accepted, allows(mask, other)) << demo_tokenizer().id_to_token(other);
    }
    ASSERT_TRUE(constraint->accept(id));
  }
  EXPECT_FALSE(constraint->finished());
  // An end, and nothing else.
  const auto mask = constraint->allowed();
  for (int32_t id = 0; id < demo_tokenizer().vocab_size(); ++id) {
    const auto ends = demo_end_ids();
    EXPECT_EQ(allows(mask, id), std::ranges::find(ends, id) != ends.end()) << id;
  }
  ASSERT_TRUE(constraint->accept(demo_end_ids()[1]));
  EXPECT_TRUE(constraint->finished());
  EXPECT_FALSE(constraint->accept(demo_end_ids()[1]));
  constraint->rollback(1);
  EXPECT_FALSE(constraint->finished());
}

TEST(Masks, RollbackGoesBackExactly) {
  const GrammarRef grammar = compile_schema(R"({"type": "array", "items": {"type": "integer"}})");
  ASSERT_NE(grammar, nullptr);
  const auto constraint = grammar->start();
  const std::vector<int32_t> ids = demo_tokenizer().encode("[12, 3]", SpecialTokens::kDisabled);
  std::vector<std::vector<uint32_t>> masks;
  for (const int32_t id : ids) {
    masks.emplace_back(constraint->allowed().begin(), constraint->allowed().end());
    ASSERT_TRUE(constraint->accept(id));
  }
  for (size_t back = ids.size(); back-- > 0;) {
    constraint->rollback(1);
    const auto mask = constraint->allowed();
    EXPECT_TRUE(std::ranges::equal(mask, masks[back])) << back;
  }
}

TEST(Compiler, KeepsWhatItHasCompiled) {
  const auto text = choice_grammar({"only this"}, "choice");
  const GrammarRef first = compile(text);
  EXPECT_EQ(first, compile(text));
  GrammarCompiler small(
      demo_tokenizer(), demo_end_ids(), demo_tokenizer().vocab_size(),
      {.max_cached_grammars = 1, .max_cached_bytes = size_t{1} << 20, .max_mask_seconds = 20});
  const auto once = *small.compile(text->ebnf, text->root, "a");
  EXPECT_EQ(once, *small.compile(text->ebnf, text->root, "a"));
  ASSERT_TRUE(small.compile("root ::= \"b\"\n", "root", "b").has_value());
  EXPECT_NE(once, *small.compile(text->ebnf, text->root, "a"));
}

TEST(Masks, AGrammarThatTakesTooLongAllowsNothing) {
  GrammarCompiler compiler(
      demo_tokenizer(), demo_end_ids(), demo_tokenizer().vocab_size(),
      {.max_cached_grammars = 1, .max_cached_bytes = 0, .max_mask_seconds = 0});
  const auto grammar = compiler.compile("root ::= [a-z]*\n", "root", "test");
  ASSERT_TRUE(grammar.has_value());
  const auto constraint = (*grammar)->start();
  ASSERT_FALSE(constraint->allowed().empty());
  for (const uint32_t word : constraint->allowed()) EXPECT_EQ(word, 0U);
}

std::vector<int32_t> ids_of(const std::string& text) {
  return demo_tokenizer().encode(text, SpecialTokens::kEnabled);
}

class Calls : public ::testing::Test {
 protected:
  GrammarRef grammar(ToolCallRules::Use use, bool many, bool strict) {
    ToolCallRules rules;
    rules.tools = {{"get_weather", &weather_, strict, "tools[0]"},
                   {"now", nullptr, false, "tools[1]"}};
    rules.use = use;
    rules.many = many;
    return compile(tool_call_grammar(rules, demo_tokenizer(), demo_end_ids()));
  }

  Json weather_ = Json::parse(R"({"type": "object", "properties": {
      "unit": {"enum": ["C", "F"]}, "City": {"type": "string"}, "days": {"type": "integer", "maximum": 9}},
      "required": ["City"]})");
};

TEST_F(Calls, ForcedCallsAreInTheFamilysSyntax) {
  const GrammarRef one = grammar(ToolCallRules::Use::kForced, false, true);
  ASSERT_NE(one, nullptr);
  const std::string good =
      R"(<|tool_call>call:get_weather{City:<|"|>Oslo, "N"<|"|>,days:3,unit:<|"|>C<|"|>}<tool_call|>)";
  EXPECT_TRUE(follows(*one, ids_of(good)));
  EXPECT_TRUE(follows(*one, ids_of("<|tool_call>call:now{}<tool_call|>")));
  EXPECT_FALSE(follows(*one, ids_of(good + good)));
  EXPECT_FALSE(follows(*one, ids_of("Sure. " + good)));
  for (const char* bad :
       {R"(<|tool_call>call:get_weather{unit:<|"|>C<|"|>}<tool_call|>)",
        R"(<|tool_call>call:get_weather{City:<|"|>Oslo<|"|>,days:12}<tool_call|>)",
        R"(<|tool_call>call:get_weather{City:Oslo}<tool_call|>)",
        R"(<|tool_call>call:get_weather{City:<|"|>Oslo<|"|>,unit:<|"|>K<|"|>}<tool_call|>)",
        R"(<|tool_call>call:other{}<tool_call|>)", R"(<|tool_call>call:now{})"})
    EXPECT_FALSE(follows(*one, ids_of(bad))) << bad;
  const GrammarRef many = grammar(ToolCallRules::Use::kForced, true, true);
  EXPECT_TRUE(follows(*many, ids_of(good + "<|tool_call>call:now{}<tool_call|>")));
}

TEST_F(Calls, FreeTextMayHoldStrictCalls) {
  const GrammarRef free = grammar(ToolCallRules::Use::kFree, true, true);
  ASSERT_NE(free, nullptr);
  EXPECT_TRUE(follows(*free, ids_of("No call is needed.")));
  EXPECT_TRUE(
      follows(*free, ids_of("<|channel>thought\nHm.<channel|>Sure. <|tool_call>call:get_weather{"
                            "City:<|\"|>Oslo<|\"|>}<tool_call|> and <|tool_call>call:now{}"
                            "<tool_call|>")));
  EXPECT_FALSE(follows(*free, ids_of("<|tool_call>call:get_weather{}<tool_call|>")));
  const GrammarRef once = grammar(ToolCallRules::Use::kFree, false, true);
  EXPECT_TRUE(follows(*once, ids_of("Well. <|tool_call>call:now{}<tool_call|>")));
  EXPECT_FALSE(follows(
      *once, ids_of("<|tool_call>call:now{}<tool_call|><|tool_call>call:now{}<tool_call|>")));
}

TEST_F(Calls, OnlyStrictToolsMustBeUnderstood) {
  weather_["patternProperties"] = Json::object();
  const GrammarRef loose = grammar(ToolCallRules::Use::kForced, false, false);
  ASSERT_NE(loose, nullptr);
  EXPECT_TRUE(
      follows(*loose, ids_of(R"(<|tool_call>call:get_weather{x:[1,{y:null}]}<tool_call|>)")));
  ToolCallRules rules;
  rules.tools = {{"get_weather", &weather_, true, "tools[0].function.parameters"}};
  const auto strict = tool_call_grammar(rules, demo_tokenizer(), demo_end_ids());
  ASSERT_FALSE(strict.has_value());
  EXPECT_TRUE(
      strict.error().message.starts_with("tools[0].function.parameters#/patternProperties:"))
      << strict.error().message;
}

TEST_F(Calls, WhatTheGrammarWritesTheParserReads) {
  const GrammarRef one = grammar(ToolCallRules::Use::kForced, false, true);
  ASSERT_NE(one, nullptr);
  const auto ids = ids_of(
      R"(<|tool_call>call:get_weather{City:<|"|>a{b},:c<|"|>,days:-3,unit:<|"|>F<|"|>}<tool_call|>)");
  ASSERT_TRUE(follows(*one, ids));
  OutputParserOptions options;
  options.tools = ToolSchemas::from_json(nlohmann::json::parse(
      R"([{"type": "function", "function": {"name": "get_weather", "parameters": )" +
      weather_.dump() + "}}]"));
  const OutputMessage message = parse_output(demo_tokenizer(), options, {}, ids);
  ASSERT_EQ(message.tool_calls.size(), 1U);
  EXPECT_EQ(Json::parse(message.tool_calls[0].arguments),
            Json::parse(R"({"City": "a{b},:c", "days": -3, "unit": "F"})"));
}

TEST(Thoughts, ComeBeforeTheAnswerOrNotAtAll) {
  const auto with = [](Thought thought) {
    return compile(after_thought(*choice_grammar({"yes"}, "choice"), thought, demo_tokenizer(),
                                 demo_end_ids()));
  };
  const GrammarRef none = with(Thought::kNone), may = with(Thought::kMay),
                   open = with(Thought::kOpen);
  const auto answer = ids_of("yes");
  const auto thought = ids_of("<|channel>thought\nIs it? \"Hm\".<channel|>yes");
  const auto inside = ids_of("It is.\n<channel|>yes");
  EXPECT_TRUE(follows(*none, answer));
  EXPECT_FALSE(follows(*none, thought));
  EXPECT_TRUE(follows(*may, answer));
  EXPECT_TRUE(follows(*may, thought));
  EXPECT_FALSE(follows(*may, inside));
  EXPECT_TRUE(follows(*open, inside));
  EXPECT_FALSE(follows(*open, answer));
  EXPECT_FALSE(follows(*may, ids_of("<|channel>thought\nIs it?<channel|>no")));
  // A thought cannot end the answer.
  const auto constraint = open->start();
  for (const int32_t id : demo_end_ids()) EXPECT_FALSE(allows(constraint->allowed(), id));
}

TEST(Either, ContentOrCalls) {
  const ToolCallRules rules{.tools = {{"now", nullptr, false, "tools[0]"}}};
  const GrammarRef grammar =
      compile(either(*json_schema_grammar(Json::parse(R"({"type": "integer"})"), "schema"),
                     *tool_call_grammar(rules, demo_tokenizer(), demo_end_ids())));
  ASSERT_NE(grammar, nullptr);
  EXPECT_TRUE(follows(*grammar, ids_of("42")));
  EXPECT_TRUE(follows(*grammar, ids_of("<|tool_call>call:now{}<tool_call|>")));
  EXPECT_FALSE(follows(*grammar, ids_of("42<|tool_call>call:now{}<tool_call|>")));
  EXPECT_FALSE(follows(*grammar, ids_of("x")));
}

}  // namespace
}  // namespace tandem::text
