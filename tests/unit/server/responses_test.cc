// /v1/responses: items as messages, the store, the order of a stream's events.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "server/responses_format.h"
#include "server/responses_request.h"
#include "tests/unit/server/demo_model.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using test::demo_model;

ApiResult<ResponsesRequest> parse(const json& body, size_t store_bytes = 1 << 20) {
  ResponseStore store(store_bytes);
  return parse_responses(body.dump(), demo_model(), store);
}

std::vector<int32_t> response_ids(const json& body) {
  const auto request = parse(body);
  EXPECT_TRUE(request.has_value()) << request.error().message;
  return request ? request->chat.prompt : std::vector<int32_t>();
}

std::vector<int32_t> chat_ids(const json& body) {
  const auto request = parse_chat(body.dump(), demo_model());
  EXPECT_TRUE(request.has_value()) << request.error().message;
  return request ? request->prompt : std::vector<int32_t>();
}

const json kHello = {{"role", "user"}, {"content", "Hello"}};

TEST(Responses, TextAndInstructionsAreAChat) {
  EXPECT_EQ(response_ids({{"input", "Hello"}}), chat_ids({{"messages", {kHello}}}));
  EXPECT_EQ(response_ids({{"input", {kHello}}, {"instructions", "Be brief."}}),
            chat_ids({{"messages", {{{"role", "system"}, {"content", "Be brief."}}, kHello}}}));
  EXPECT_EQ(response_ids({{"input", "Hello"}, {"reasoning", {{"effort", "low"}}}}),
            chat_ids({{"messages", {kHello}}, {"reasoning_effort", "low"}}));
}

// One turn of the assistant is several items here, one message there.
TEST(Responses, ToolRoundIsTheChatsToolRound) {
  const json function = {{"name", "weather"}, {"arguments", R"({"city": "Oslo"})"}};
  const json chat = {{"messages",
                      {kHello,
                       {{"role", "assistant"},
                        {"reasoning", "Hm."},
                        {"content", "A moment."},
                        {"tool_calls",
                         {{{"id", "c1"}, {"type", "function"}, {"function", function}},
                          {{"id", "c2"}, {"type", "function"}, {"function", function}}}}},
                       {{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "cold"}},
                       {{"role", "tool"}, {"tool_call_id", "c2"}, {"content", "very"}}}}};
  const auto call = [&](const char* id) {
    return json{{"type", "function_call"}, {"id", "fc"},
                {"status", "completed"},   {"call_id", id},
                {"name", "weather"},       {"arguments", function["arguments"]}};
  };
  const auto output = [](const char* id, const json& text) {
    return json{{"type", "function_call_output"}, {"call_id", id}, {"output", text}};
  };
  const json thought = {{"type", "reasoning"},
                        {"id", "rs"},
                        {"summary", json::array()},
                        {"content", {{{"type", "reasoning_text"}, {"text", "Hm."}}}}};
  const json message = {
      {"type", "message"},
      {"role", "assistant"},
      {"content",
       {{{"type", "output_text"}, {"text", "A moment."}, {"annotations", json::array()}}}}};
  EXPECT_EQ(response_ids({{"input",
                           {kHello, thought, message, call("c1"), call("c2"), output("c1", "cold"),
                            output("c2", {{{"type", "input_text"}, {"text", "very"}}})}}}),
            chat_ids(chat));
}

TEST(Responses, ThoughtsInManyItemsAreReadInAMoment) {
  const ordered_json part = {{"type", "reasoning_text"}, {"text", std::string(1000, 'x')}};
  const ordered_json item = {{"type", "reasoning"}, {"content", {part}}};
  const ordered_json items(20'000, item);
  const json body = json::object();
  Fields fields(body);
  ordered_json messages = ordered_json::array();
  const base::Stopwatch watch;
  add_item_messages(fields, items, 0, messages);
  EXPECT_LT(watch.seconds(), 5);
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages[0]["reasoning"].get_ref<const std::string&>().size(), 20'000'000U);
}

TEST(Responses, RefusalsNameTheClientsField) {
  const std::vector<std::pair<json, std::string>> cases = {
      {json::object(), "input"},
      {{{"input", 3}}, "input"},
      {{{"input", json::array()}}, "input"},
      {{{"input", {{{"role", "user"}, {"content", {{{"type", "input_image"}}}}}}}},
       "input[0].content[0].type"},
      {{{"input", {{{"type", "item_reference"}, {"id", "x"}}}}}, "input[0].type"},
      {{{"input", {{{"type", "function_call"}, {"call_id", "x"}, {"arguments", "{}"}}}}},
       "input[0].name"},
      {{{"input", {{{"role", "robot"}, {"content", "x"}}}}}, "input[0].role"},
      {{{"input", "x"}, {"tools", {{{"type", "web_search"}}}}}, "tools[0].type"},
      {{{"input", "x"}, {"max_output_tokens", 0}}, "max_output_tokens"},
      {{{"input", "x"}, {"max_output_tokens", 5000}}, "input"},
      {{{"input", "x"}, {"background", true}}, "background"},
      {{{"input", "x"}, {"conversation", "c"}}, "conversation"},
      {{{"input", "x"}, {"truncation", "auto"}}, "truncation"},
      {{{"input", "x"}, {"include", {"file_search_call.results"}}}, "include"},
      {{{"input", "x"}, {"previous_response_id", "resp_none"}}, "previous_response_id"},
      {{{"input", "x"}, {"top_logprobs", 2}}, "top_logprobs"},
      {{{"input", "x"}, {"max_tokens", 2}}, "max_tokens"},
      {{{"input", "x"}, {"temperature", -1}}, "temperature"},
      {{{"input", "x"}, {"text", {{"formats", 1}}}}, "text.formats"}};
  for (const auto& [body, param] : cases) {
    const auto request = parse(body);
    ASSERT_FALSE(request.has_value()) << body;
    EXPECT_EQ(request.error().param.value_or(""), param) << request.error().message;
    EXPECT_TRUE(request.error().message.starts_with(param + ":")) << request.error().message;
  }
  const auto off = parse({{"input", "x"}, {"previous_response_id", "resp_1"}}, 0);
  ASSERT_FALSE(off.has_value());
  EXPECT_NE(off.error().message.find("--response-store-mib"), std::string::npos);
  EXPECT_FALSE(parse({{"input", "x"}}, 0)->store);
}

// What would have no effect beside the type is refused, as chats do.
TEST(Responses, FormatsAreReadWhole) {
  const std::vector<json> formats = {{{"type", "json_object"}, {"schema", json::object()}},
                                     {{"type", "text"}, {"strict", true}}};
  for (const json& format : formats) {
    const auto request = parse({{"input", "x"}, {"text", {{"format", format}}}});
    ASSERT_FALSE(request.has_value()) << format;
    EXPECT_EQ(request.error().param, "text.format");
  }
}

TEST(ResponseStore, DropsWhatWasNotUsedForLongest) {
  ResponseStore store(10'000);
  const auto body = [](char c) { return StoredResponse{std::string(2000, c), "[]"}; };
  for (const char c : {'a', 'b', 'c'}) store.put(std::string(1, c), body(c));
  EXPECT_NE(store.get("a"), nullptr);
  store.put("d", body('d'));  // four do not fit: b goes
  EXPECT_EQ(store.get("b"), nullptr);
  for (const char* id : {"a", "c", "d"}) ASSERT_NE(store.get(id), nullptr) << id;
  EXPECT_LE(store.num_bytes(), 10'000U);
  store.put("e", {std::string(20'000, 'e'), ""});
  EXPECT_EQ(store.get("e"), nullptr);
  EXPECT_NE(store.get("a"), nullptr);
  store.put("a", {"new", "[]"});
  EXPECT_EQ(store.get("a")->reply, "new");
  for (const char* id : {"a", "c", "d"}) EXPECT_TRUE(store.erase(id));
  EXPECT_FALSE(store.erase("a"));
  EXPECT_EQ(store.num_bytes(), 0U);
}

std::vector<json> events_of(const std::string& text) {
  std::vector<json> events;
  for (size_t begin = 0; begin < text.size();) {
    const size_t data = text.find("\ndata: ", begin) + 7;
    const size_t end = text.find("\n\n", data);
    events.push_back(json::parse(text.substr(data, end - data)));
    EXPECT_EQ(events.back()["sequence_number"], events.size() - 1);
    begin = end + 2;
  }
  return events;
}

struct Reply {
  std::shared_ptr<ordered_json> fields;
  std::shared_ptr<ordered_json> input;
};
Reply reply_parts() {
  const auto request = parse({{"input", "Hello"}});
  return {request->reply, request->input};
}

// Every answer's events tell the same as the reply that is sent whole.
TEST(Responses, StreamsAddUpToTheWhole) {
  using Kind = text::OutputEvent::Kind;
  const auto piece = [](Kind kind, const char* text) {
    return AnswerPiece{{kind, text, 0, "call_1", "f"}, false};
  };
  for (const char* reason : {"tool_calls", "length"}) {
    std::vector<AnswerPiece> pieces = {
        piece(Kind::kReasoning, "Let "),   piece(Kind::kReasoning, "me."),
        piece(Kind::kContent, "One"),      piece(Kind::kContent, " two"),
        piece(Kind::kToolCallBegin, ""),   piece(Kind::kToolArguments, "{\"a\":"),
        piece(Kind::kToolArguments, "1}"), piece(Kind::kToolCallEnd, "")};
    ResponseStore store(1 << 20);
    const ReplyNames names{"resp_1", 5, "demo"};
    const Reply one = reply_parts(), two = reply_parts();
    const auto streams = make_responses_format(names, one.fields, one.input, &store);
    const auto at_once = make_responses_format(names, two.fields, two.input, nullptr);
    std::string stream = streams->begin_choice(0, {});
    ChoicePart whole{.pieces = pieces, .finish_reason = reason};
    for (size_t i = 0; i < pieces.size(); ++i) {
      ChoicePart part{.pieces = {pieces[i]}};
      if (i + 1 == pieces.size()) part.finish_reason = reason;
      stream += streams->chunk(part, {});
    }
    const Usage usage{.num_prompt_tokens = 3, .num_output_tokens = 8};
    stream += streams->end_stream(usage, nullptr);
    json want = json::parse(at_once->whole({whole}, usage, nullptr));
    const auto events = events_of(stream);
    const bool cut = std::string(reason) == "length";
    EXPECT_EQ(events.front()["type"], "response.created");
    EXPECT_EQ(events.back()["type"], cut ? "response.incomplete" : "response.completed");
    json got = events.back()["response"];
    EXPECT_EQ(json::parse(store.get("resp_1")->reply), got);
    for (json* reply : {&got, &want}) reply->erase("completed_at");
    EXPECT_EQ(got, want);
    ASSERT_EQ(got["output"].size(), 3U);
    EXPECT_EQ(got["output"][2]["status"], cut ? "incomplete" : "completed");
    EXPECT_EQ(got["output"][1]["status"], "completed");
    json built = json::array();
    std::string open;
    for (const json& event : events) {
      const std::string type = event["type"];
      if (type == "response.output_item.added") {
        EXPECT_EQ(open, "") << "one item after the other";
        open = event["item"]["id"];
        EXPECT_EQ(event["output_index"], built.size());
        built.push_back("");
      } else if (type.ends_with(".delta")) {
        EXPECT_EQ(event["item_id"], open);
        built.back() = built.back().get<std::string>() + event["delta"].get<std::string>();
      } else if (type == "response.output_item.done") {
        EXPECT_EQ(event["item"], got["output"][event["output_index"].get<size_t>()]);
        open.clear();
      }
    }
    EXPECT_EQ(built, json({"Let me.", "One two", "{\"a\":1}"}));
  }
}

TEST(Responses, OneThatIsTooLargeForTheStoreSaysSo) {
  for (const size_t num_bytes : {size_t{1} << 20, size_t{600}}) {
    ResponseStore store(num_bytes);
    const Reply parts = reply_parts();
    const auto format =
        make_responses_format({"resp_1", 5, "demo"}, parts.fields, parts.input, &store);
    const json reply = json::parse(format->whole({{.finish_reason = "stop"}}, {}, nullptr));
    EXPECT_EQ(reply["store"], store.get("resp_1") != nullptr);
    EXPECT_EQ(reply["store"], num_bytes > 600);
  }
}

TEST(Responses, TheNextOneGoesOnFromTheStore) {
  ResponseStore store(1 << 20);
  const Reply parts = reply_parts();
  const auto format =
      make_responses_format({"resp_1", 5, "demo"}, parts.fields, parts.input, &store);
  format->whole({{.pieces = {{{text::OutputEvent::Kind::kContent, "Hi.", -1, "", ""}, false}},
                  .finish_reason = "stop"}},
                {}, nullptr);
  const auto next = parse_responses(
      json({{"input", "More"}, {"previous_response_id", "resp_1"}}).dump(), demo_model(), store);
  ASSERT_TRUE(next.has_value()) << next.error().message;
  EXPECT_EQ(next->chat.prompt, chat_ids({{"messages",
                                          {kHello,
                                           {{"role", "assistant"}, {"content", "Hi."}},
                                           {{"role", "user"}, {"content", "More"}}}}}));
  // What is wrong in this request's input is named by its place there.
  const auto bad = parse_responses(
      json({{"input", {{{"role", "robot"}}}}, {"previous_response_id", "resp_1"}}).dump(),
      demo_model(), store);
  EXPECT_EQ(bad.error().param, "input[0].role");
}

}  // namespace
}  // namespace tandem::server
