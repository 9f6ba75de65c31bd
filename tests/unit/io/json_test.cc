#include "io/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"

namespace tandem::io {
namespace {

using nlohmann::json;

std::string refusal(std::string_view text, const JsonLimits& limits = {}) {
  const auto result = parse_json(text, "x.json", limits);
  return result ? "accepted: " + result->dump() : result.error().message;
}

TEST(JsonTest, ReadsWhatIsValid) {
  EXPECT_EQ(*parse_json(R"( {"a": [1, -2, 2.5, "é\n", true, null, {}]} )", "x"),
            (json{{"a", {1, -2, 2.5, "é\n", true, nullptr, json::object()}}}));
  EXPECT_EQ(*parse_json("3", "x"), json(3));
  EXPECT_EQ(parse_json("1e30", "x")->get<double>(), 1e30);
}

TEST(JsonTest, NamesThePlaceOfBrokenJson) {
  EXPECT_EQ(refusal("{\"key\": tru}"),
            "x.json: expected valid JSON, got broken JSON at byte 11, near \"ey\\\": tru}\"");
  EXPECT_EQ(refusal(""), "x.json: expected valid JSON, got broken JSON at byte 0, near \"\"");
  EXPECT_EQ(refusal("[\"\x01\"]"),
            "x.json: expected valid JSON, got broken JSON at byte 2, near \"[\\\"\\x01\\\"]\"");
}

TEST(JsonTest, DuplicatesAreFoundPerObject) {
  EXPECT_EQ(refusal(R"({"a":{"b":1},"c":{"b":2,"b":3}})"),
            "x.json: expected each key once, got the key \"b\" twice in one object");
  EXPECT_TRUE(parse_json(R"([{"a":1},{"a":2}])", "x").has_value());
}

TEST(JsonTest, LimitsAreExact) {
  EXPECT_TRUE(parse_json(std::string(100, '[') + std::string(100, ']'), "x").has_value());
  EXPECT_NE(refusal(std::string(101, '[') + std::string(101, ']')).find("at most 100 nested"),
            std::string::npos);
  EXPECT_TRUE(parse_json("[1,2,3]", "x", {.max_values = 3}).has_value());
  EXPECT_NE(refusal("[1,2,3]", {.max_values = 2}).find("at most 2 JSON values"), std::string::npos);
  EXPECT_TRUE(parse_json("\"abc\"", "x", {.max_bytes = 5}).has_value());
  EXPECT_NE(refusal("\"abcd\"", {.max_bytes = 5}).find("at most 5 bytes"), std::string::npos);
  EXPECT_NE(refusal("\"abcdefgh\"", {.max_string_bytes = 4}).find("strings of at most 4 bytes"),
            std::string::npos);
}

// Brackets and quotes inside strings are text.
TEST(JsonTest, LimitsDoNotCountInsideStrings) {
  const JsonLimits limits{.max_depth = 1, .max_values = 2};
  EXPECT_TRUE(parse_json(R"(["[[[{{,,,\"[[["])", "x", limits).has_value());
}

TEST(JsonTest, KeysMayKeepTheirOrder) {
  const char* text = R"({"b": 1, "a": [{"z": null, "y": {}}, [2.5, "é"]], "c": true})";
  EXPECT_EQ(parse_ordered_json(text)->dump(), nlohmann::ordered_json::parse(text).dump());
  EXPECT_EQ(parse_ordered_json(R"({"a": 1, "b": [2], "a": {"c": 3}})")->dump(),
            R"({"a":{"c":3},"b":[2]})");
  EXPECT_EQ(*parse_ordered_json("3"), 3);
  for (const char* broken : {"", "{", "{\"a\":1} x", "[1,]", "{\"a\":1e999}", "\"\xff\""})
    EXPECT_FALSE(parse_ordered_json(broken).has_value()) << broken;
}

TEST(JsonTest, ManyKeysTakeNoLonger) {
  std::string text = "{\"a\":0";
  for (int i = 0; i < 200'000; ++i) text += fmt::format(",\"{}\":{}", i, i);
  const base::Stopwatch watch;
  EXPECT_EQ(parse_ordered_json(text + "}")->size(), 200'001U);
  EXPECT_LT(watch.seconds(), 5);
}

TEST(JsonObjectTest, IntegersAreWholeAndInRange) {
  const json value = {{"a", 4}, {"b", 4.0}, {"c", 4.5}, {"d", ~uint64_t{0}}, {"e", nullptr}};
  const JsonObject object = *JsonObject::of(value, "f");
  EXPECT_EQ(*object.integer("a", 0, 9), 4);
  EXPECT_EQ(*object.integer("b", 0, 9), 4);
  EXPECT_EQ(object.integer("c", 0, 9).error().message,
            "f: c: expected an integer from 0 to 9, got 4.5");
  EXPECT_EQ(object.integer("a", 5, 9).error().message,
            "f: a: expected an integer from 5 to 9, got 4");
  EXPECT_FALSE(object.integer("d", 0, INT64_MAX).has_value());
  EXPECT_EQ(*object.integer_or("e", 7, 0, 9), 7);
  EXPECT_EQ(*object.integer_or("z", 7, 0, 9), 7);
}

TEST(JsonObjectTest, LongValuesAreShortenedInMessages) {
  const json value = {{"a", std::string(1000, 'x')}};
  const JsonObject object = *JsonObject::of(value, "f");
  EXPECT_LT(object.integer("a", 0, 9).error().message.size(), 150U);
}

}  // namespace
}  // namespace tandem::io
