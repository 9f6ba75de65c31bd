// The engine against what jinja2 3.1.6 rendered: small templates, and conversations through every
// template generation of the family.
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/text/jinja_test_support.h"

namespace tandem::text::jinja {
namespace {

// Valid for jinja2 but refused here by name when the template is loaded.
const std::set<std::string> kRefused = {"{{ ''.__class__ }}|", "{{ c | batch(2) | list }}"};

void check_case(const nlohmann::ordered_json& entry, const nlohmann::ordered_json& variables) {
  const std::string source = entry["template"];
  const Rendered result = render(source, variables);
  if (entry.contains("expected") && !kRefused.contains(source)) {
    EXPECT_TRUE(result.ok) << source << "\n" << result.text;
    EXPECT_EQ(result.text, entry["expected"].get<std::string>()) << source;
  } else {
    EXPECT_FALSE(result.ok) << source << "\n" << result.text;
  }
}

TEST(JinjaGolden, SmallTemplates) {
  const auto golden = read_test_json("golden/text/jinja.json");
  ASSERT_GT(golden["cases"].size(), 100U);
  for (const auto& entry : golden["cases"]) check_case(entry, entry["variables"]);
}

TEST(JinjaGolden, FiltersMethodsTestsAndPrinting) {
  const auto golden = read_test_json("data/text/jinja_cases.json");
  ASSERT_GT(golden["cases"].size(), 130U);
  for (const auto& entry : golden["cases"]) check_case(entry, golden["variables"]);
}

TEST(JinjaGolden, ConversationsThroughEveryTemplate) {
  const auto golden = read_test_json("golden/text/chat.json");
  size_t num_checked = 0;
  for (const std::string name : golden["templates"]) {
    const auto parsed = Template::parse(read_test_file("data/templates/" + name), name);
    ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
    for (const auto& entry : golden["cases"]) {
      Template::Variables variables;
      for (const auto& [key, value] : golden["variables"].items()) {
        variables.emplace_back(key, from_json(value, true));
      }
      for (const char* key : {"messages", "tools"}) {
        variables.emplace_back(key,
                               entry.contains(key) ? from_json(entry[key], false) : Value(None{}));
      }
      for (const auto& [key, value] : entry["kwargs"].items()) {
        variables.emplace_back(key, from_json(value, false));
      }
      const auto result = parsed->render(variables, {});
      ++num_checked;
      // A conversation that jinja2 refuses with this template stands under "error" instead.
      const auto expected = entry["expected"].find(name);
      if (expected != entry["expected"].end()) {
        ASSERT_TRUE(result.has_value()) << name << " " << entry["name"] << result.error().message;
        EXPECT_EQ(result->text(), expected->get<std::string>()) << name << " " << entry["name"];
      } else {
        EXPECT_TRUE(entry["error"].contains(name)) << name << " " << entry["name"];
        EXPECT_FALSE(result.has_value()) << name << " " << entry["name"];
      }
    }
  }
  EXPECT_GT(num_checked, 400U);
}

}  // namespace
}  // namespace tandem::text::jinja
