// Values inside free text.
#include "tests/unit/text/grammar/support.h"

namespace tandem::text {
namespace {

struct Tags {
  Json number = Json::parse(R"({"type": "integer", "minimum": 0, "maximum": 9})");
  Json name = Json::parse(R"({"enum": ["a", "b"]})");
  std::vector<TaggedValue> values = {
      {"<f=n>", &number, "</f>", "n"}, {"<f=s>", &name, "</f>", "s"}, {"@", &number, "", "at"}};
};

TEST(TaggedGrammar, FreeTextWithValues) {
  const Tags tags;
  const GrammarRef grammar = compile(tagged_grammar(tags.values, {"<f=", "@"}, "test"));
  ASSERT_NE(grammar, nullptr);
  for (const char* text :
       {"", "hello", "x <f=n>7</f> y", "<f=s>\"a\"</f><f=n>0</f>@5.", "< f=n>x", "@1@2"})
    EXPECT_TRUE(grammar->matches(text)) << text;
  for (const char* text : {"<f=", "<f=n>", "<f=n>x</f>", "<f=n>7</f", "<f=x>7</f>",
                           "<f=s>\"c\"</f>", "a @ b", "@", "see <f=n>12</f>"})
    EXPECT_FALSE(grammar->matches(text)) << text;
}

TEST(TaggedGrammar, RefusesWhatDoesNotFitTogether) {
  const Tags tags;
  const auto refusal = [&](const std::vector<std::string>& triggers) {
    const auto grammar = tagged_grammar(tags.values, triggers, "test");
    return grammar ? "accepted" : grammar.error().message;
  };
  EXPECT_NE(refusal({}).find("at least one trigger"), std::string::npos);
  EXPECT_NE(refusal({""}).find("some text"), std::string::npos);
  EXPECT_NE(refusal({"<f="}).find("starts with one of the triggers"), std::string::npos);
  EXPECT_NE(refusal({"<f=", "@", "<"}).find("part of another"), std::string::npos);
  EXPECT_NE(refusal({"<f=", "@", "<g="}).find("for each trigger"), std::string::npos);
  const Json never = Json::parse(R"({"not": {}})");
  const auto bad = tagged_grammar({{"@", &never, "", "schema"}}, {"@"}, "test");
  ASSERT_FALSE(bad.has_value());
  EXPECT_TRUE(bad.error().message.starts_with("schema")) << bad.error().message;
}

}  // namespace
}  // namespace tandem::text
