// /v1/messages: what becomes of a request, and the order of a stream's events.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/messages_format.h"
#include "server/messages_request.h"
#include "tests/unit/server/demo_model.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using test::demo_model;

std::vector<int32_t> chat_ids(const json& body) {
  const auto request = parse_chat(body.dump(), demo_model());
  EXPECT_TRUE(request.has_value()) << request.error().message;
  return request ? request->prompt : std::vector<int32_t>();
}

std::vector<int32_t> messages_ids(const json& body) {
  const auto request = parse_messages(body.dump(), demo_model());
  EXPECT_TRUE(request.has_value()) << request.error().message;
  return request ? request->prompt : std::vector<int32_t>();
}

const json kSchema = {{"type", "object"}, {"properties", {{"city", {{"type", "string"}}}}}};

TEST(Messages, SystemAndBlocksAreTheChatOfTheSameWords) {
  const json chat = {{"messages",
                      {{{"role", "system"}, {"content", "Be brief."}},
                       {{"role", "user"}, {"content", "Hello"}},
                       {{"role", "assistant"}, {"content", "Hi."}},
                       {{"role", "user"}, {"content", "And now?"}}}}};
  const json body = {
      {"max_tokens", 9},
      {"system", {{{"type", "text"}, {"text", "Be brief."}, {"cache_control", json::object()}}}},
      {"messages",
       {{{"role", "user"}, {"content", {{{"type", "text"}, {"text", "Hello"}}}}},
        {{"role", "assistant"}, {"content", "Hi."}},
        {{"role", "user"}, {"content", "And now?"}}}}};
  EXPECT_EQ(messages_ids(body), chat_ids(chat));
}

TEST(Messages, ToolRoundIsTheChatsToolRound) {
  const json call = {{"name", "weather"}, {"arguments", R"({"city": "Oslo"})"}};
  const json chat = {
      {"tools",
       {{{"type", "function"},
         {"function", {{"name", "weather"}, {"description", "d"}, {"parameters", kSchema}}}}}},
      {"messages",
       {{{"role", "user"}, {"content", "Weather?"}},
        {{"role", "assistant"},
         {"tool_calls", {{{"id", "t1"}, {"type", "function"}, {"function", call}}}}},
        {{"role", "tool"}, {"tool_call_id", "t1"}, {"content", "cold"}},
        {{"role", "user"}, {"content", "So?"}}}}};
  const json body = {
      {"max_tokens", 9},
      {"tools", {{{"name", "weather"}, {"description", "d"}, {"input_schema", kSchema}}}},
      {"messages",
       {{{"role", "user"}, {"content", "Weather?"}},
        {{"role", "assistant"},
         {"content",
          {{{"type", "tool_use"},
            {"id", "t1"},
            {"name", "weather"},
            {"input", {{"city", "Oslo"}}}}}}},
        {{"role", "user"},
         {"content",
          {{{"type", "tool_result"}, {"tool_use_id", "t1"}, {"content", "cold"}},
           {{"type", "text"}, {"text", "So?"}}}}}}}};
  EXPECT_EQ(messages_ids(body), chat_ids(chat));
  const auto request = parse_messages(body.dump(), demo_model());
  EXPECT_NE(request->tools, nullptr);
  json without = body;
  without["tool_choice"] = {{"type", "none"}};
  EXPECT_EQ(parse_messages(without.dump(), demo_model())->tools, nullptr);
}

TEST(Messages, ThinkingStopsAndPrefill) {
  json body = {{"max_tokens", 9}, {"messages", {{{"role", "user"}, {"content", "Hello"}}}}};
  json chat = {{"messages", body["messages"]}, {"reasoning_effort", "high"}};
  body["thinking"] = {{"type", "enabled"}, {"budget_tokens", 2000}};
  body["stop_sequences"] = {"END"};
  EXPECT_EQ(messages_ids(body), chat_ids(chat));
  const auto thinking = parse_messages(body.dump(), demo_model());
  EXPECT_TRUE(thinking->include_reasoning);
  EXPECT_EQ(thinking->params.stop, std::vector<std::string>{"END"});
  EXPECT_EQ(thinking->params.max_tokens, 9);
  EXPECT_EQ(thinking->params.thinking_budget, 2000);
  body["thinking"] = {{"type", "disabled"}};
  EXPECT_FALSE(parse_messages(body.dump(), demo_model())->include_reasoning);
  EXPECT_FALSE(parse_messages(body.dump(), demo_model())->params.thinking_budget.has_value());
  body.erase("thinking");
  body["messages"].push_back({{"role", "assistant"}, {"content", "It is"}});
  chat = {{"messages", body["messages"]},
          {"continue_final_message", true},
          {"add_generation_prompt", false}};
  EXPECT_EQ(messages_ids(body), chat_ids(chat));
  EXPECT_EQ(count_messages(body.dump(), demo_model()),
            static_cast<int64_t>(messages_ids(body).size()));
}

// Anthropic lets the last message of the assistant be empty.
TEST(Messages, AnAnswerWithoutAWordIsNotBegun) {
  const json user = {{"role", "user"}, {"content", "Hello"}};
  const json empty_text = {{"type", "text"}, {"text", ""}};
  const json hidden = {{"type", "redacted_thinking"}, {"data", "x"}};
  const json contents = {"", json::array(), json::array({empty_text}),
                         json::array({empty_text, empty_text}), json::array({hidden})};
  for (const json& content : contents) {
    const json last = {{"role", "assistant"}, {"content", content}};
    const json body = {{"max_tokens", 9}, {"messages", {user, last}}};
    EXPECT_EQ(messages_ids(body), chat_ids({{"messages", {user}}})) << content;
    EXPECT_EQ(count_messages(body.dump(), demo_model()),
              static_cast<int64_t>(messages_ids(body).size()));
  }
}

TEST(Messages, RefusalsNameTheClientsField) {
  const json user = {{"role", "user"}, {"content", "x"}};
  const auto content = [](json blocks) {
    return json({{"max_tokens", 5}, {"messages", {{{"role", "user"}, {"content", blocks}}}}});
  };
  const std::vector<std::pair<json, std::string>> cases = {
      {{{"messages", {user}}}, "max_tokens"},
      {{{"max_tokens", 0}, {"messages", {user}}}, "max_tokens"},
      {{{"max_tokens", 5000}, {"messages", {user}}}, "messages"},
      {{{"max_tokens", 5}}, "messages"},
      {{{"max_tokens", 5}, {"messages", json::array()}}, "messages"},
      {{{"max_tokens", 5}, {"messages", {{{"role", "system"}, {"content", "x"}}}}},
       "messages[0].role"},
      {{{"max_tokens", 5}, {"messages", {3}}}, ""},
      {content({{{"type", "image"}, {"source", json::object()}}}), "messages[0].content[0].type"},
      {content({{{"type", "text"}, {"text", 3}}}), "messages[0].content[0].text"},
      {content({{{"type", "text"}, {"text", "a"}, {"unknown_key", "b"}}}),
       "messages[0].content[0].unknown_key"},
      {content({{{"type", "tool_result"}}}), "messages[0].content[0].tool_use_id"},
      {content(3), "messages[0].content"},
      {{{"max_tokens", 5}, {"messages", {user}}, {"stop_sequences", 3}}, "stop_sequences"},
      {{{"max_tokens", 5}, {"messages", {user}}, {"stop_sequences", {""}}}, "stop_sequences"},
      {{{"max_tokens", 5}, {"messages", {user}}, {"thinking", {{"type", "some"}}}},
       "thinking.type"},
      {{{"max_tokens", 5}, {"messages", {user}}, {"tools", {{{"type", "bash"}, {"name", "b"}}}}},
       "tools[0].type"},
      {{{"max_tokens", 5},
        {"messages", {user}},
        {"output_config",
         {{"format", {{"type", "json_schema"}, {"schema", kSchema}, {"name", "n"}}}}}},
       "output_config.format.name"},
      {{{"max_tokens", 5}, {"messages", {user}}, {"temperature", "hot"}}, "temperature"},
      {{{"max_tokens", 5}, {"messages", {user}}, {"unknown", 1}}, "unknown"},
      {{{"max_tokens", 5}, {"messages", {user}}, {"model", "other"}}, "model"}};
  for (const auto& [body, param] : cases) {
    const auto request = parse_messages(body.dump(), demo_model());
    ASSERT_FALSE(request.has_value()) << body;
    EXPECT_EQ(request.error().param.value_or(""), param) << request.error().message;
    if (!param.empty()) {
      EXPECT_TRUE(request.error().message.starts_with(param + ":")) << request.error().message;
    }
  }
}

TEST(Messages, ASchemaBesideAnotherTypeIsRefused) {
  const json format = {{"type", "json_object"}, {"schema", kSchema}};
  const json body = {{"max_tokens", 5},
                     {"messages", {{{"role", "user"}, {"content", "x"}}}},
                     {"output_config", {{"format", format}}}};
  const auto request = parse_messages(body.dump(), demo_model());
  ASSERT_FALSE(request.has_value());
  EXPECT_EQ(request.error().param, "output_config.format");
}

std::vector<json> events_of(const std::string& text) {
  std::vector<json> events;
  for (size_t begin = 0; begin < text.size();) {
    const size_t data = text.find("\ndata: ", begin) + 7;
    const size_t end = text.find("\n\n", data);
    events.push_back(json::parse(text.substr(data, end - data)));
    EXPECT_EQ(text.substr(begin, data - 7 - begin),
              "event: " + events.back()["type"].get<std::string>());
    begin = end + 2;
  }
  return events;
}

ChoicePart answer_of(const std::string& text, bool in_one,
                     const std::function<void(ChoicePart)>& each) {
  AnswerOptions options;
  options.chat = true;
  options.call_id_prefix = "toolu_";
  options.tools = text::ToolSchemas::from_json(json::array());
  Answer answer(demo_model().tokenizer, options, {});
  const auto ids = demo_model().tokenizer.encode(text, text::SpecialTokens::kEnabled);
  ChoicePart whole;
  engine::TokenEvent event;
  const auto flush = [&](bool last) {
    ChoicePart part{.pieces = answer.push(event)};
    event = {};
    if (last) {
      for (AnswerPiece& piece : answer.finish()) part.pieces.push_back(std::move(piece));
      part.finish_reason = whole.finish_reason = answer.has_tool_call() ? "tool_calls" : "stop";
    }
    for (const AnswerPiece& piece : part.pieces) whole.pieces.push_back(piece);
    each(std::move(part));
  };
  for (const int32_t id : ids) {
    event.tokens.push_back({.token = id, .logprob = 0, .top = {}});
    if (!in_one) flush(false);
  }
  flush(true);
  return whole;
}

TEST(Messages, StreamsAddUpToTheWhole) {
  const std::string text =
      "<|channel>thought\nLet me see.<channel|>Fine \xF0\x9F\x98\x80, a call:"
      "<|tool_call>call:f{a:1,b:<|\"|>x<|\"|>}<tool_call|>";
  for (const bool in_one : {false, true}) {
    const auto format = make_messages_format({"msg_1", 5, "demo"});
    std::string stream = format->begin_choice(0, {.num_prompt_tokens = 7});
    const ChoicePart whole =
        answer_of(text, in_one, [&](const ChoicePart& part) { stream += format->chunk(part, {}); });
    stream += format->end_stream({.num_prompt_tokens = 7, .num_output_tokens = 9}, nullptr);
    json blocks = json::array();
    std::vector<std::string> order;
    for (const json& event : events_of(stream)) {
      const std::string type = event["type"];
      if (order.empty() || order.back() != type) order.push_back(type);
      if (type == "content_block_start") {
        EXPECT_EQ(event["index"], blocks.size());
        blocks.push_back(event["content_block"]);
        if (blocks.back()["type"] == "tool_use") blocks.back()["input"] = "";
      }
      if (type != "content_block_delta") continue;
      json& block = blocks[event["index"].get<size_t>()];
      const json& delta = event["delta"];
      const auto add = [&](const char* key, const char* from) {
        if (delta.contains(from))
          block[key] = block[key].get<std::string>() + delta[from].get<std::string>();
      };
      add("text", "text");
      add("thinking", "thinking");
      add("signature", "signature");
      add("input", "partial_json");
    }
    for (json& block : blocks)
      if (block["type"] == "tool_use")
        block["input"] = json::parse(block["input"].get<std::string>());
    EXPECT_EQ(order.front(), "message_start");
    EXPECT_EQ(order[order.size() - 2], "message_delta");
    EXPECT_EQ(order.back(), "message_stop");
    const auto other = make_messages_format({"msg_1", 5, "demo"});
    const json reply = json::parse(
        other->whole({whole}, {.num_prompt_tokens = 7, .num_output_tokens = 9}, nullptr));
    EXPECT_EQ(reply["content"], blocks);
    EXPECT_EQ(reply["content"].size(), 3U);
    EXPECT_EQ(reply["stop_reason"], "tool_use");
    EXPECT_EQ(reply["usage"]["input_tokens"], 7);
    EXPECT_EQ(reply["usage"]["output_tokens"], 9);
  }
}

// What Anthropic's client looks for before it sends the whole conversation instead.
TEST(Messages, ThreadsAreRefusedByTheirCode) {
  const json body = {{"max_tokens", 9},
                     {"messages", {{{"role", "user"}, {"content", "Hello"}}}},
                     {"thread", {{"type", "create"}}}};
  const auto request = parse_messages(body.dump(), demo_model());
  ASSERT_FALSE(request.has_value());
  EXPECT_EQ(request.error().param, "thread");
  const json error = json::parse(messages_error_json(request.error()));
  EXPECT_EQ(error["error"]["details"]["error_code"], "thread_unsupported_request");
  EXPECT_FALSE(json::parse(messages_error_json({400, "x"}))["error"].contains("details"));
}

TEST(Messages, ErrorsHaveAnthropicsForm) {
  const json error = json::parse(messages_error_json({429, "full"}));
  EXPECT_EQ(error["type"], "error");
  EXPECT_EQ(error["error"]["type"], "rate_limit_error");
  EXPECT_EQ(messages_error_reply({429, "full"}).head.headers[0].first, "Retry-After");
}

}  // namespace
}  // namespace tandem::server
