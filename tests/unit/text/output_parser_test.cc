#include "text/output_parser.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "tests/unit/text/real_tokenizer.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

using Ids = std::vector<int32_t>;
using Kind = OutputEvent::Kind;

Ids ids_of(std::string_view text) {
  return real_tokenizer().encode(text, SpecialTokens::kEnabled);
}

OutputMessage parse(std::string_view text, const OutputParserOptions& options = {},
                    std::string_view prompt = "") {
  return parse_output(real_tokenizer(), options, ids_of(prompt), ids_of(text));
}

OutputMessage message(std::string reasoning, std::string content,
                      std::vector<ToolCall> calls = {}) {
  return {std::move(reasoning), std::move(content), std::move(calls)};
}

ToolCall call(int index, std::string name, std::string arguments) {
  return {"call_" + std::to_string(index), std::move(name), std::move(arguments), true};
}

TEST(OutputParser, ContentAndReasoning) {
  EXPECT_EQ(parse("Hello"), message("", "Hello"));
  EXPECT_EQ(parse("<|channel>thought\nHm.\n<channel|>Hello<turn|>after"),
            message("Hm.\n", "Hello"));
  EXPECT_EQ(parse("<|channel>thought\n<channel|>Hello"), message("", "Hello"));
  EXPECT_EQ(parse("<|channel>Hm<channel|>Hello"), message("Hm", "Hello"));
  EXPECT_EQ(parse("a<|channel>thought\nb<channel|>c<|channel>thought\nd<channel|>e"),
            message("bd", "ace"));
  EXPECT_EQ(parse("a<channel|>b<tool_call|>c"), message("", "abc"));
  EXPECT_EQ(parse("x<eos>y"), message("", "x"));
  EXPECT_EQ(parse("x<|tool_response>y"), message("", "x"));
  EXPECT_EQ(parse("<|channel>thought\ncut off"), message("cut off", ""));
  EXPECT_EQ(parse(""), message("", ""));
}

TEST(OutputParser, TheChannelNameIsNeverShown) {
  for (const char* cut : {"<|channel>", "<|channel>th", "<|channel>thought", "<|channel>thought\n"})
    EXPECT_EQ(parse(cut), message("", "")) << cut;
  EXPECT_EQ(parse("<|channel>thought<channel|>x"), message("", "x"));
  EXPECT_EQ(parse("<|channel>thoughts"), message("thoughts", ""));
}

TEST(OutputParser, ReasoningWithoutItsMark) {
  EXPECT_EQ(parse("thought\nHm<channel|>Hello"), message("Hm", "Hello"));
  EXPECT_EQ(parse("thoughtful"), message("", "thoughtful"));
  EXPECT_EQ(parse("thought"), message("", "thought"));
  OutputParserOptions hold;
  hold.hold_untagged_reasoning = true;
  EXPECT_EQ(parse("Hm<channel|>Hello", hold), message("Hm", "Hello"));
  EXPECT_EQ(parse("Hello<turn|>", hold), message("", "Hello"));
  EXPECT_EQ(parse("Hi<|channel>thought\nHm<channel|>Hello", hold), message("Hm", "HiHello"));
}

TEST(OutputParser, ThePromptMayHaveOpenedTheThought) {
  const std::string turn = "<bos><|turn>user\nx<turn|>\n<|turn>model\n";
  EXPECT_EQ(parse("Hm<channel|>a", {}, turn + "<|channel>thought\n"), message("Hm", "a"));
  EXPECT_EQ(parse("\nHm<channel|>a", {}, turn + "<|channel>thought"), message("Hm", "a"));
  EXPECT_EQ(parse("a", {}, turn + "<|channel>thought\n<channel|>"), message("", "a"));
  EXPECT_EQ(parse("a", {}, "<|channel>thought\nopen<turn|>\n<|turn>model\n"), message("", "a"));
}

TEST(OutputParser, ToolCalls) {
  EXPECT_EQ(parse("<|tool_call>call:get_weather{city:<|\"|>Paris<|\"|>,days:3}<tool_call|>"),
            message("", "", {call(0, "get_weather", R"({"city": "Paris", "days": 3})")}));
  EXPECT_EQ(parse("Ok<|tool_call>call:a{}<tool_call|><|tool_call>call:b{x:1}<tool_call|>then"),
            message("", "Okthen", {call(0, "a", "{}"), call(1, "b", R"({"x": 1})")}));
  // Closed by the turn, by the end, by the next call, twice in one block, without a brace.
  EXPECT_EQ(parse("<|tool_call>call:a{x:1}<turn|>"),
            message("", "", {call(0, "a", R"({"x": 1})")}));
  EXPECT_EQ(parse("<|tool_call>call:a{x:12"), message("", "", {call(0, "a", R"({"x": 12})")}));
  EXPECT_EQ(parse("<|tool_call>call:a{x:1<|tool_call>call:b{}<tool_call|>"),
            message("", "", {call(0, "a", R"({"x": 1})"), call(1, "b", "{}")}));
  EXPECT_EQ(parse("<|tool_call>call:a{}\ncall:b{}}<tool_call|>"),
            message("", "", {call(0, "a", "{}"), call(1, "b", "{}")}));
  EXPECT_EQ(parse("<|tool_call>call:a<tool_call|>"), message("", "", {call(0, "a", "{}")}));
  EXPECT_EQ(parse("<|tool_call>call:get_wea"), message("", ""));
  EXPECT_EQ(parse("<|channel>thought\nHm<|tool_call>call:a{}<tool_call|>"),
            message("Hm", "", {call(0, "a", "{}")}));
  EXPECT_TRUE(parse("<|tool_call>call:a{x:12").has_finished_call());
  EXPECT_FALSE(parse("<|tool_call>call:a").has_finished_call());
}

TEST(OutputParser, QuotesAreTokensAndNotSpellings) {
  Ids ids = ids_of("<|tool_call>call:f{s:<|\"|>");
  const Ids spelled = real_tokenizer().encode("say <|\"|> <tool_call|>", SpecialTokens::kDisabled);
  ids.insert(ids.end(), spelled.begin(), spelled.end());
  const Ids rest = ids_of("<|\"|>}<tool_call|>");
  ids.insert(ids.end(), rest.begin(), rest.end());
  EXPECT_EQ(parse_output(real_tokenizer(), {}, {}, ids),
            message("", "", {call(0, "f", R"({"s": "say <|\"|> <tool_call|>"})")}));
}

TEST(OutputParser, QuoteNextToTheBytesOfASplitEmoji) {
  Ids ids = ids_of("<|tool_call>call:f{s:<|\"|>");
  for (const int byte : {0xF0, 0x9F, 0x98, 0x80, 0xF0, 0x9F}) ids.push_back(238 + byte);
  const Ids rest = ids_of("<|\"|>}<tool_call|>");
  ids.insert(ids.end(), rest.begin(), rest.end());
  EXPECT_EQ(parse_output(real_tokenizer(), {}, {}, ids),
            message("", "", {call(0, "f", "{\"s\": \"😀\uFFFD\uFFFD\"}")}));
}

TEST(OutputParser, SchemaOfTheCalledTool) {
  OutputParserOptions options;
  options.call_id_prefix = "call_";
  options.tools = ToolSchemas::from_json(nlohmann::json::parse(
      R"([{"type": "function", "function": {"name": "f", "parameters":
          {"type": "object", "properties": {"zip": {"type": "string"}}}}}])"));
  EXPECT_EQ(parse("<|tool_call>call:f{zip:01234}<tool_call|>", options),
            message("", "", {call(0, "f", R"({"zip": "01234"})")}));
  EXPECT_EQ(parse("<|tool_call>call:g{zip:1234}<tool_call|>", options),
            message("", "", {call(0, "g", R"({"zip": 1234})")}));
}

TEST(OutputParser, PartsCanBeSwitchedOff) {
  OutputParserOptions plain;
  plain.parse_reasoning = plain.parse_tools = false;
  const std::string text = "<|channel>thought\nHm<channel|>x<|tool_call>call:a{}<tool_call|>";
  EXPECT_EQ(parse(text, plain), message("", "thought\nHmxcall:a{}"));
  plain.skip_special_tokens = false;
  EXPECT_EQ(parse(text, plain), message("", text));
  OutputParserOptions endless;
  endless.end_tokens_end = false;
  EXPECT_EQ(parse("a<turn|>b<eos>c", endless), message("", "abc"));
}

TEST(OutputParser, EventsOfOneStepComeInOrder) {
  OutputParser parser(real_tokenizer(), {});
  const auto events = parser.push(
      ids_of("<|channel>thought\nHm<channel|>Ok<|tool_call>call:a{x:<|\"|>y<|\"|>}<tool_call|>"
             "<|tool_call>call:b{}<tool_call|>"));
  const std::vector<OutputEvent> expected = {
      {Kind::kReasoning, "Hm", -1, "", ""},
      {Kind::kContent, "Ok", -1, "", ""},
      {Kind::kToolCallBegin, "", 0, "call_0", "a"},
      {Kind::kToolArguments, R"({"x": "y"})", 0, "", ""},
      {Kind::kToolCallEnd, "", 0, "", ""},
      {Kind::kToolCallBegin, "", 1, "call_1", "b"},
      {Kind::kToolArguments, "{}", 1, "", ""},
      {Kind::kToolCallEnd, "", 1, "", ""},
  };
  EXPECT_EQ(events, expected);
  EXPECT_FALSE(parser.ended());
  EXPECT_TRUE(parser.push(ids_of("<turn|>")).empty());
  EXPECT_TRUE(parser.ended());
  EXPECT_TRUE(parser.finish().empty());
}

// The name is known as soon as the brace is there; strings do not wait for their end.
TEST(OutputParser, StreamsACallEarly) {
  OutputParser parser(real_tokenizer(), {});
  OutputMessage so_far;
  const auto push = [&](std::string_view text) {
    for (const auto& event : parser.push(ids_of(text))) so_far.add(event);
  };
  push("<|tool_call>call:f");
  EXPECT_TRUE(so_far.tool_calls.empty());
  push("{");
  ASSERT_EQ(so_far.tool_calls.size(), 1u);
  push("s:<|\"|>abc");
  EXPECT_EQ(so_far.tool_calls[0].arguments, R"({"s": "abc)");
  EXPECT_FALSE(so_far.has_finished_call());
}

Ids random_answer(std::mt19937& random) {
  static const std::vector<Ids> pieces = [] {
    std::vector<Ids> list;
    for (const char* text : {"<|channel>",
                             "<channel|>",
                             "<|tool_call>",
                             "<tool_call|>",
                             "<|\"|>",
                             "<|\"|>",
                             "thought\n",
                             "call:f{",
                             "call:",
                             "name",
                             "{",
                             "}",
                             "[",
                             "]",
                             ":",
                             ",",
                             "a:1",
                             "12.",
                             "tru",
                             " words here",
                             "\n",
                             "<bos>",
                             "é"}) {
      list.push_back(ids_of(text));
    }
    for (const int byte : {0xF0, 0x9F, 0x98, 0x80, 0x41, 0xFF}) list.push_back({238 + byte});
    for (const char* text : {"<turn|>", "<eos>", "<|tool_response>"}) list.push_back(ids_of(text));
    return list;
  }();
  Ids ids;
  for (uint64_t i = 2 + random() % 40; i > 0; --i) {
    // Ends are rare, so that most answers are long.
    const bool may_end = random() % 30 == 0;
    const auto& piece = pieces[random() % (pieces.size() - (may_end ? 0 : 3))];
    ids.insert(ids.end(), piece.begin(), piece.end());
  }
  return ids;
}

TEST(OutputParser, AnyGroupingGivesTheSameMessage) {
  std::mt19937 random(5);
  for (int round = 0; round < 10000; ++round) {
    const Ids ids = random_answer(random);
    OutputParserOptions options;
    options.hold_untagged_reasoning = round % 4 == 0;
    options.skip_special_tokens = round % 3 != 0;
    const OutputMessage whole = parse_output(real_tokenizer(), options, {}, ids);
    for (const ToolCall& tool_call : whole.tool_calls) {
      ASSERT_TRUE(tool_call.finished);
      ASSERT_TRUE(nlohmann::json::accept(tool_call.arguments)) << tool_call.arguments;
    }
    OutputParser parser(real_tokenizer(), options);
    OutputMessage joined;
    for (size_t at = 0; at < ids.size();) {
      const size_t count = std::min<size_t>(1 + random() % 9, ids.size() - at);
      for (const OutputEvent& event : parser.push(std::span(ids).subspan(at, count))) {
        ASSERT_TRUE(is_valid_utf8(event.text));
        joined.add(event);
      }
      at += count;
    }
    for (const OutputEvent& event : parser.finish()) joined.add(event);
    ASSERT_EQ(joined, whole) << real_tokenizer().decode(ids, false);
  }
}

}  // namespace
}  // namespace tandem::text
