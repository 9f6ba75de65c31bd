#include "text/tool_arguments.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace tandem::text {
namespace {

using nlohmann::json;

// Text with ~ for the quote token, given in steps of `step` bytes.
std::string convert(std::string_view text, const json& schema = nullptr, size_t step = 1000) {
  ToolArguments arguments{SchemaNode(&schema, &schema)};
  std::string out = "{";
  while (!text.empty() && !arguments.done()) {
    if (text[0] == '~') {
      arguments.push_quote(out);
      text.remove_prefix(1);
      continue;
    }
    const size_t count = std::min({step, text.find('~'), text.size()});
    text.remove_prefix(arguments.push_text(text.substr(0, count), out));
  }
  arguments.finish(out);
  return out;
}

TEST(ToolArguments, WithoutASchemaTheTextTells) {
  EXPECT_EQ(convert("}"), "{}");
  EXPECT_EQ(convert("city:~Paris~,days:3}"), R"({"city": "Paris", "days": 3})");
  EXPECT_EQ(convert("a:true,b:false,c:null,d:-1.5e3,e:some words}"),
            R"({"a": true, "b": false, "c": null, "d": -1.5e3, "e": "some words"})");
  EXPECT_EQ(
      convert("o:{x:1,y:{z:~w~}},l:[1,~two~,[3],{f:4}],e:[],n:{}}"),
      R"({"o": {"x": 1, "y": {"z": "w"}}, "l": [1, "two", [3], {"f": 4}], "e": [], "n": {}})");
  EXPECT_EQ(convert(" a : 1 ,\n b : ~x~ }"), R"({"a": 1, "b": "x"})");
  EXPECT_EQ(convert("~my key~:1,\"k\":2}"), R"({"my key": 1, "k": 2})");
}

TEST(ToolArguments, StringsAreRaw) {
  EXPECT_EQ(convert("a:~{x:1}, [y] \"q\" \\n \n\t\x01~}"),
            R"({"a": "{x:1}, [y] \"q\" \\n \n\t\u0001"})");
  EXPECT_EQ(convert("a:~~}"), R"({"a": ""})");
  EXPECT_EQ(convert("a:~123~,b:~true~}"), R"({"a": "123", "b": "true"})");
}

TEST(ToolArguments, KeysBetweenQuoteTokensAreWhatTheySay) {
  const json schema = {{"properties", {{" n ", {{"type", "integer"}}}}}};
  EXPECT_EQ(convert("~ n ~:~5~,~\"q\"~:2,~\n~ : 3}", schema), R"({" n ": 5, "\"q\"": 2, "\n": 3})");
  EXPECT_EQ(convert("~ a~, b :1,o:{~ c~}}"), R"({"b": 1, "o": {}})");
  EXPECT_EQ(convert("~ a~:{ b :1}, \"c\" :2}"), R"({" a": {"b": 1}, "c": 2})");
}

TEST(ToolArguments, ElementsHaveTheSchemaOfTheirPlace) {
  const json list = {{"prefixItems", {{{"type", "string"}}, {{"type", "integer"}}}},
                     {"items", {{"type", "boolean"}}}};
  const json schema = {{"properties", {{"a", list}}}};
  EXPECT_EQ(convert("a:[~12~,~3~,~true~,~x~]}", schema), R"({"a": ["12", 3, true, "x"]})");
  const json numbers_first = {{"prefixItems", {{{"type", "integer"}}}},
                              {"items", {{"type", "string"}}}};
  EXPECT_EQ(convert("a:[12,5]}", {{"properties", {{"a", numbers_first}}}}), R"({"a": [12, "5"]})");
}

TEST(ToolArguments, BrokenSyntaxStillGivesJson) {
  EXPECT_EQ(convert("a:~no end"), R"({"a": "no end"})");
  EXPECT_EQ(convert("a:~no end}"), R"({"a": "no end}"})");
  EXPECT_EQ(convert("a:12"), R"({"a": 12})");
  EXPECT_EQ(convert("a:"), R"({"a": null})");
  EXPECT_EQ(convert("a"), "{}");
  EXPECT_EQ(convert("a:[1,2"), R"({"a": [1, 2]})");
  EXPECT_EQ(convert("a:[1,2}"), R"({"a": [1, 2]})");
  EXPECT_EQ(convert("a:[,1,,]}"), R"({"a": [1]})");
  EXPECT_EQ(convert("a:1.,b:tru,c:01,d:-,e:NaN}"),
            R"({"a": "1.", "b": "tru", "c": "01", "d": "-", "e": "NaN"})");
  EXPECT_EQ(convert("a:,b:1}"), R"({"a": "", "b": 1})");
  EXPECT_EQ(convert("just,words,a:1}"), R"({"a": 1})");
  EXPECT_EQ(convert("a:~x~ junk,b:1~}"), R"({"a": "x", "b": 1})");
  const std::string deep(500, '[');
  EXPECT_TRUE(json::accept(convert("a:" + deep)));
  EXPECT_TRUE(json::accept(convert("a:" + deep + std::string(500, ']') + "}")));
}

TEST(ToolArguments, TheSchemaDecides) {
  const json schema = json::parse(R"({"type": "object", "properties": {
      "s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"},
      "b": {"type": "boolean"}, "z": {"type": "null"}, "o": {"type": "object"},
      "l": {"type": "array", "items": {"type": "string"}}, "u": {"type": ["integer", "string"]},
      "x": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "r": {"$ref": "#/$defs/name"},
      "e": {"enum": ["1", "2"]}, "U": {"type": "STRING"},
      "q": {"type": "object", "properties": {"t": {"type": "string"}}}},
      "$defs": {"name": {"type": "string"}}, "additionalProperties": {"type": "integer"}})");
  const auto with = [&](std::string_view text) { return convert(text, schema); };
  EXPECT_EQ(with("s:5,U:6,r:7,e:1}"), R"({"s": "5", "U": "6", "r": "7", "e": "1"})");
  EXPECT_EQ(with("i:~5~,n:~1.5~,b:~true~,z:~null~}"),
            R"({"i": 5, "n": 1.5, "b": true, "z": null})");
  EXPECT_EQ(with("i:5.0,n:5,b:True}"), R"({"i": 5, "n": 5, "b": true})");
  EXPECT_EQ(with("i:~five~,b:~maybe~}"), R"({"i": "five", "b": "maybe"})");
  EXPECT_EQ(with("o:~{\"k\": [1]}~,l:~[\"a\"]~}"), R"({"o": {"k": [1]}, "l": ["a"]})");
  EXPECT_EQ(with("l:[1,~2~,true]}"), R"({"l": ["1", "2", "true"]})");
  EXPECT_EQ(with("u:5,u:~5~,x:None,x:~false~}"), R"({"u": 5, "u": "5", "x": null, "x": false})");
  EXPECT_EQ(with("q:{t:1,v:1},other:~9~}"), R"({"q": {"t": "1", "v": 1}, "other": 9})");
  EXPECT_EQ(with("s:null}"), R"({"s": null})");
}

TEST(ToolArguments, SchemasInsideUnionsDecideToo) {
  // What Pydantic writes for Optional[Address], list[Address] | None and Any | None.
  const json schema = json::parse(R"({"properties": {
      "a": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]},
      "l": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Address"}}, {"type": "null"}]},
      "x": {"anyOf": [{}, {"type": "null"}]},
      "s": {"oneOf": [{"properties": {"k": {"const": 1}, "r": {"type": "integer"}}},
                      {"properties": {"k": {"const": 2}, "r": {"type": "string"}}}]},
      "p": {"$ref": "#/$defs/a~1b%20c"}},
      "$defs": {"a/b c": {"type": "string"}, "Address": {"type": "object", "properties": {
          "zip": {"type": "string"}, "no": {"type": "integer"},
          "next": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]}}}}})");
  const auto with = [&](std::string_view text) { return convert(text, schema); };
  EXPECT_EQ(with("a:{zip:12345,no:~5~,next:{zip:6,no:~7~}}}"),
            R"({"a": {"zip": "12345", "no": 5, "next": {"zip": "6", "no": 7}}})");
  EXPECT_EQ(with("l:[{zip:12345,no:~5~}]}"), R"({"l": [{"zip": "12345", "no": 5}]})");
  EXPECT_EQ(with("x:~None~}"), R"({"x": "None"})");
  EXPECT_EQ(with("x:None,a:None}"), R"({"x": "None", "a": null})");
  EXPECT_EQ(with("s:{k:2,r:~5~}}"), R"({"s": {"k": 2, "r": "5"}})");
  EXPECT_EQ(with("p:12}"), R"({"p": "12"})");
}

TEST(ToolArguments, MalformedSchemasCountAsNone) {
  for (const char* text : {"1", "[]", "{\"properties\": 3}", "{\"properties\": {\"a\": true}}",
                           "{\"properties\": {\"a\": {\"type\": 7}}}",
                           "{\"properties\": {\"a\": {\"$ref\": \"#/nowhere\"}}}",
                           "{\"properties\": {\"a\": {\"$ref\": \"#/properties/a\"}}}"}) {
    EXPECT_EQ(convert("a:5,b:~6~}", json::parse(text)), R"({"a": 5, "b": "6"})") << text;
  }
  EXPECT_EQ(ToolSchemas::from_json(json::parse(R"([1, {"function": {"name": 3}}])"))
                ->parameters("x")
                .types(),
            std::vector<std::string>());
}

TEST(ToolArguments, SchemasThatLeadBackToThemselvesAreReadOnce) {
  json schema = {{"properties", {{"a", {{"anyOf", {{{"type", "integer"}}}}}}}}};
  for (int i = 0; i < 1000; ++i)
    schema["properties"]["a"]["anyOf"].push_back({{"$ref", "#/properties/a"}});
  schema["properties"]["a"]["anyOf"].push_back({{"type", "null"}});
  EXPECT_EQ(convert("a:~5~}", schema), R"({"a": 5})");
  EXPECT_EQ(SchemaNode(&schema, &schema).property("a").types(),
            (std::vector<std::string>{"integer", "null"}));
}

TEST(ToolArguments, StepsDoNotMatterAndNothingWrittenIsTakenBack) {
  const std::string_view text = "a:12,b:~long string~,c:[true,{d:1.25,e:~x~}],f:tru}tail";
  const std::string whole = convert(text);
  for (size_t step = 1; step < text.size(); ++step) EXPECT_EQ(convert(text, nullptr, step), whole);
  // Every beginning can be finished to valid JSON; strings are written before they end.
  for (size_t size = 0; size <= text.size(); ++size)
    EXPECT_TRUE(json::accept(convert(text.substr(0, size)))) << text.substr(0, size);
  ToolArguments arguments{SchemaNode()};
  std::string out;
  arguments.push_text("a:", out);
  arguments.push_quote(out);
  arguments.push_text("now", out);
  EXPECT_EQ(out, R"("a": "now)");
  out.clear();
  arguments.push_quote(out);
  arguments.push_text(",b:12", out);
  EXPECT_EQ(out, R"(", "b": )");
}

}  // namespace
}  // namespace tandem::text
