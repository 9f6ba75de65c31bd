// Answers as clients read them: the same whatever the steps were.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "server/api_error.h"
#include "server/format.h"
#include "server/http_text.h"
#include "server/json_text.h"
#include "server/metrics.h"
#include "server/service.h"
#include "server/stats_log.h"
#include "tests/unit/server/demo_model.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using test::demo_model;

std::vector<int32_t> ids_of(const std::string& text) {
  return demo_model().tokenizer.encode(text, text::SpecialTokens::kEnabled);
}

struct Outcome {
  std::string content, reasoning, arguments;
  std::string stop_text;
  int64_t num_tokens = 0;
  bool operator==(const Outcome&) const = default;
};

// Feeds ids in groups of the given sizes.
Outcome run(const AnswerOptions& options, const std::vector<int32_t>& ids,
            const std::function<size_t()>& group_size) {
  Answer answer(demo_model().tokenizer, options, {});
  Outcome outcome;
  const auto take = [&](const std::vector<AnswerPiece>& pieces) {
    for (const AnswerPiece& piece : pieces) {
      if (piece.kind == AnswerPiece::Kind::kContent) outcome.content += piece.text;
      if (piece.kind == AnswerPiece::Kind::kReasoning) outcome.reasoning += piece.text;
      if (piece.kind == AnswerPiece::Kind::kToolCallBegin) outcome.arguments += piece.call_name;
      if (piece.kind == AnswerPiece::Kind::kToolArguments) outcome.arguments += piece.text;
    }
  };
  for (size_t begin = 0; begin < ids.size() && !answer.stopped();) {
    const size_t end = std::min(ids.size(), begin + group_size());
    engine::TokenEvent event;
    for (; begin < end; ++begin)
      event.tokens.push_back({.token = ids[begin], .logprob = 0, .top = {}});
    take(answer.push(event));
  }
  take(answer.finish());
  outcome.stop_text = answer.stop_text().value_or("");
  outcome.num_tokens = answer.num_tokens();
  return outcome;
}

AnswerOptions chat_options(std::vector<std::string> stop, bool with_tools) {
  AnswerOptions options;
  options.stop = std::move(stop);
  options.chat = true;
  options.call_id_prefix = "call_";
  if (with_tools) options.tools = text::ToolSchemas::from_json(json::array());
  return options;
}

TEST(Answer, DoesNotDependOnTheSteps) {
  const std::vector<std::string> texts = {
      "Plain text with a stop word: STOP and more.",
      "<|channel>thought\nLet me see \xF0\x9F\x98\x80.<channel|>The answer \xC3\xA9\xE2\x82\xAC.",
      "First <|tool_call>call:f{a:<|\"|>x STOP y<|\"|>,b:3}<tool_call|> then STOP more",
  };
  std::mt19937 random(5);
  for (const std::string& text : texts) {
    const auto ids = ids_of(text);
    for (const bool with_tools : {false, true}) {
      for (const auto& stop : std::vector<std::vector<std::string>>{{}, {"STOP"}, {"e", "OP"}}) {
        const AnswerOptions options = chat_options(stop, with_tools);
        const Outcome one = run(options, ids, [] { return size_t{1}; });
        EXPECT_EQ(run(options, ids, [&] { return ids.size(); }), one) << text;
        for (int i = 0; i < 30; ++i)
          EXPECT_EQ(run(options, ids, [&] { return size_t{1} + random() % 9; }), one) << text;
      }
    }
  }
}

TEST(Answer, StopStringsWatchTheContent) {
  const auto one = [] { return size_t{1}; };
  const Outcome plain = run(chat_options({"STOP"}, false), ids_of("before STOP after"), one);
  EXPECT_EQ(plain.content, "before ");
  EXPECT_EQ(plain.stop_text, "STOP");
  AnswerOptions kept = chat_options({"STOP"}, false);
  kept.include_stop = true;
  EXPECT_EQ(run(kept, ids_of("before STOP after"), one).content, "before STOP");
  const Outcome thought = run(chat_options({"STOP"}, false),
                              ids_of("<|channel>thought\nSTOP here<channel|>and STOP there"), one);
  EXPECT_EQ(thought.reasoning, "STOP here");
  EXPECT_EQ(thought.content, "and ");
}

TEST(Answer, StopStringsWaitForMinTokens) {
  const std::vector<int32_t> ids = ids_of("one STOP two STOP three");
  for (const size_t group : {1U, 2U, 100U}) {
    AnswerOptions options = chat_options({"STOP"}, false);
    options.min_tokens = static_cast<int64_t>(ids_of("one STOP").size());
    const Outcome outcome = run(options, ids, [&] { return group; });
    EXPECT_EQ(outcome.content, "one STOP two ") << group;
    EXPECT_EQ(outcome.num_tokens, static_cast<int64_t>(ids_of("one STOP two STOP").size()));
    --options.min_tokens;
    EXPECT_EQ(run(options, ids, [&] { return group; }).content, "one ") << group;
  }
}

TEST(Answer, OffsetsAreWhereTheTextOfATokenBegins) {
  const auto byte = [](int value) { return 238 + value; };
  std::vector<int32_t> ids = ids_of("go");
  const size_t num_before = ids.size();
  ids.insert(ids.end(), {byte(0xE6), byte(0x97)});  // no character, since "x" follows
  const std::vector<int32_t> after = ids_of("x");
  ASSERT_EQ(after.size(), 1U);
  ids.insert(ids.end(), {after[0], byte(0xE6), byte(0x97), byte(0xA5), after[0]});
  Answer answer(demo_model().tokenizer, {}, {});
  engine::TokenEvent event;
  for (const int32_t id : ids) event.tokens.push_back({.token = id, .logprob = 0, .top = {}});
  answer.push(event);
  std::vector<int64_t> offsets;
  for (const AnswerToken& token : answer.take_tokens()) offsets.push_back(token.text_offset);
  // "go", two U+FFFD, "x", one character of three tokens, "x"
  EXPECT_EQ(std::vector<int64_t>(offsets.begin() + static_cast<int64_t>(num_before), offsets.end()),
            (std::vector<int64_t>{2, 2, 4, 5, 5, 5, 6}));
}

TEST(Format, StreamsAddUpToTheWhole) {
  const ReplyNames names{"chatcmpl-1", 5, "demo"};
  const auto format = make_chat_format(demo_model().tokenizer, names, {});
  const auto ids =
      ids_of("Hello \xF0\x9F\x98\x80 <|tool_call>call:f{a:1,b:<|\"|>x<|\"|>}<tool_call|>");
  Answer answer(demo_model().tokenizer, chat_options({}, true), {});
  std::string content, arguments;
  ChoicePart whole;
  const auto take = [&](std::vector<AnswerPiece> pieces) {
    ChoicePart part;
    part.pieces = pieces;
    for (AnswerPiece& piece : pieces) whole.pieces.push_back(std::move(piece));
    const std::string event = format->chunk(part, {});
    ASSERT_TRUE(event.starts_with("data: ") && event.ends_with("\n\n"));
    const json delta = json::parse(event.substr(6))["choices"][0]["delta"];
    content += delta.value("content", "");
    for (const json& call : delta.value("tool_calls", json::array()))
      arguments += call["function"].value("arguments", "");
  };
  for (const int32_t id : ids) {
    engine::TokenEvent event;
    event.tokens.push_back({.token = id, .logprob = 0, .top = {}});
    take(answer.push(event));
  }
  take(answer.finish());
  const json reply = json::parse(
      format->whole({whole}, {.num_prompt_tokens = 3, .num_output_tokens = 4}, nullptr));
  const json message = reply["choices"][0]["message"];
  EXPECT_EQ(message["content"], content);
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], arguments);
  EXPECT_EQ(json::parse(arguments), json({{"a", 1}, {"b", "x"}}));
  EXPECT_EQ(reply["usage"]["total_tokens"], 7);
}

// Every step's text is told apart by who wrote it; a character that two tokens share is the last's.
TEST(Format, AChunkOfManyPiecesIsWrittenInAMoment) {
  ChoicePart part;
  part.pieces.resize(100'000,
                     {{AnswerPiece::Kind::kContent, std::string(10, 'x'), -1, "", ""}, false});
  const auto format = make_chat_format(demo_model().tokenizer, {"chatcmpl-1", 5, "demo"}, {});
  const base::Stopwatch watch;
  EXPECT_GT(format->chunk(part, {}).size(), 1'000'000U);
  EXPECT_LT(watch.seconds(), 5);
}

TEST(Format, DraftInfoTellsWhoWroteTheText) {
  const auto format =
      make_chat_format(demo_model().tokenizer, {"chatcmpl-1", 5, "demo"}, {.draft_info = true});
  const auto ids = ids_of("<|channel>thought\nHm.<channel|>One two three \xF0\x9F\x98\x80 four");
  Answer answer(demo_model().tokenizer, chat_options({}, false), {});
  std::string expected, drafted, own, reasoning;
  ChoicePart whole;
  for (size_t begin = 0; begin < ids.size(); begin += 3) {
    const size_t end = std::min(ids.size(), begin + 3);
    engine::TokenEvent event{.num_drafted = 4, .num_accepted = static_cast<int>(end - begin) - 1};
    for (size_t i = begin; i < end; ++i)
      event.tokens.push_back({.token = ids[i], .logprob = 0, .top = {}});
    ChoicePart part{.num_drafted = 4, .num_accepted = event.num_accepted};
    part.pieces = answer.push(event);
    part.tokens = answer.take_tokens();
    const json choice = json::parse(format->chunk(part, {}).substr(6))["choices"][0];
    const json info = choice["draft_info"];
    EXPECT_EQ(info["num_tokens"], end - begin);
    EXPECT_EQ(info["num_accepted"], end - begin - 1);
    std::string content;
    for (const json& run : info["content"]) {
      content += run["text"].get<std::string>();
      (run["drafted"] ? drafted : own) += run["text"].get<std::string>();
    }
    for (const json& run : info["reasoning"]) reasoning += run["text"].get<std::string>();
    EXPECT_EQ(content, choice["delta"].value("content", ""));
    expected += content;
    std::ranges::move(part.pieces, std::back_inserter(whole.pieces));
  }
  EXPECT_EQ(reasoning, "Hm.");
  EXPECT_FALSE(drafted.empty());
  EXPECT_FALSE(own.empty());
  EXPECT_EQ(drafted.size() + own.size(), expected.size());
  const json reply = json::parse(format->whole(
      {whole}, {.num_prompt_tokens = 3, .num_output_tokens = 4}, nullptr))["choices"][0];
  std::string drafted_of_whole;
  for (const json& run : reply["draft_info"]["content"])
    if (run["drafted"]) drafted_of_whole += run["text"].get<std::string>();
  EXPECT_EQ(drafted_of_whole, drafted);
}

TEST(Answer, MarksTheTextOfAcceptedDrafts) {
  const auto ids = ids_of("a b c d");
  ASSERT_EQ(ids.size(), 4U);
  AnswerOptions options;
  options.stop = {"never"};
  Answer answer(demo_model().tokenizer, options, {});
  engine::TokenEvent event{.num_drafted = 4, .num_accepted = 2};
  for (size_t i = 0; i < 3; ++i) event.tokens.push_back({.token = ids[i], .logprob = 0, .top = {}});
  std::string marks;
  for (const AnswerPiece& piece : answer.push(event))
    marks += fmt::format("[{}{}]", piece.text, piece.drafted ? "+" : "-");
  EXPECT_EQ(marks, "[a+][ b+][ c-]");
}

TEST(Format, TextIsAlwaysValidJson) {
  EXPECT_EQ(json_text({{"a", "x\xFFy\n"}}), "{\"a\":\"x\xEF\xBF\xBDy\\n\"}");
  EXPECT_EQ(sse_event({{"a", "1\n\n2"}}), "data: {\"a\":\"1\\n\\n2\"}\n\n");
}

TEST(Errors, HaveOpenAisForm) {
  const json error = json::parse(error_json({.status = 429, .message = "full"}))["error"];
  EXPECT_EQ(error["type"], "rate_limit_error");
  EXPECT_TRUE(error["param"].is_null());
  EXPECT_EQ(error_reply({.status = 429, .message = "x"}).head.headers[0].first, "Retry-After");
  EXPECT_EQ(from_error({base::ErrorCode::kInvalidArgument, "top_p: expected 1, got 2"}).param,
            "top_p");
}

TEST(Keys, AreComparedWhole) {
  const std::vector<std::string> keys = {"secret", "other-key"};
  for (const char* good : {"secret", "other-key"}) EXPECT_TRUE(matches_key(good, keys));
  for (const char* bad : {"", "s", "secre", "secrets", "secretsecret", "Secret", "other-key "})
    EXPECT_FALSE(matches_key(bad, keys)) << bad;
}

TEST(RequestIds, OnlyHarmlessOnesAreTaken) {
  EXPECT_EQ(request_id("abc-1.2_X"), "abc-1.2_X");
  EXPECT_EQ(request_id("a\r\nb").size(), 32U);
  EXPECT_EQ(request_id(std::string(129, 'a')).size(), 32U);
  EXPECT_NE(request_id(""), request_id(""));
}

TEST(HttpText, Heads) {
  const ReplyHead head{.status = 431, .content_type = "text/plain", .headers = {{"A", "b"}}};
  EXPECT_EQ(head_text(head, BodyFraming::kLength, 3, false),
            "HTTP/1.1 431 Request Header Fields Too Large\r\nServer: tandem\r\nContent-Type: "
            "text/plain\r\nA: b\r\nContent-Length: 3\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(chunk_text("0123456789abcdef"), "10\r\n0123456789abcdef\r\n");
}

TEST(HttpText, TargetsOfProxies) {
  EXPECT_EQ(origin_form("/v1/models?a=http://b"), "/v1/models?a=http://b");
  EXPECT_EQ(origin_form("http://host/v1/models?a=b"), "/v1/models?a=b");
  EXPECT_EQ(origin_form("HTTPS://user@[::1]:8000/v1"), "/v1");
  EXPECT_EQ(origin_form("http://host"), "/");
  EXPECT_EQ(origin_form("http://host?a=b/c"), "/?a=b/c");
  EXPECT_EQ(origin_form("http://host//v1"), "//v1");
  for (const char* none : {"", "*", "v1/models", "host:8000", "ftp://host/v1", "http:/v1",
                           "://x/v1", "http:///v1", "http://", "x/http://host/v1"})
    EXPECT_EQ(origin_form(none), "") << none;
}

TEST(Metrics, CountersAndHistograms) {
  Metrics metrics("de\"mo");
  engine::RequestStats stats;
  stats.num_prompt_tokens = 5;
  stats.num_output_tokens = 7;
  stats.queue_seconds = 0.5;
  stats.first_token_seconds = 0.75;
  stats.total_seconds = 2;
  metrics.add_finished({.reason = "stop", .max_tokens = 9, .stats = stats});
  metrics.add_first_token(0.75);
  metrics.add_inter_token(0.4, 4);
  metrics.add_http("GET", "/health", 200, 0.001);
  metrics.add_step(12);
  metrics.add_step(70);
  MetricsState state;
  state.num_draft_tokens = 2;
  state.num_admitted = 3;
  state.engine.num_running = 1;
  state.engine.num_pages = 10;
  state.engine.num_held_pages = 5;
  state.engine.acceptance.add_round(2, 1);
  state.engine.num_acceptance_warnings = 2;
  state.healthy = false;
  const std::string text = metrics.text(state);
  const std::string labels = "{model_name=\"de\\\"mo\",engine=\"0\"";
  for (const std::string& line :
       {"vllm:request_success_total" + labels + ",finished_reason=\"stop\"} 1\n",
        "vllm:num_requests_waiting" + labels + "} 2\n",
        "vllm:kv_cache_usage_perc" + labels + "} 0.5\n",
        "vllm:spec_decode_num_accepted_tokens_per_pos_total" + labels + ",position=\"0\"} 1\n",
        "vllm:spec_decode_num_accepted_tokens_per_pos_total" + labels + ",position=\"1\"} 0\n",
        "vllm:time_to_first_token_seconds_bucket" + labels + ",le=\"0.5\"} 0\n",
        "vllm:time_to_first_token_seconds_bucket" + labels + ",le=\"0.75\"} 1\n",
        "vllm:inter_token_latency_seconds_count" + labels + "} 4\n",
        "vllm:iteration_tokens_total_bucket" + labels + ",le=\"64\"} 1\n",
        "vllm:iteration_tokens_total_sum" + labels + "} 82\n",
        "tandem:acceptance_warnings_total" + labels + "} 2\n", "tandem:healthy" + labels + "} 0\n",
        "vllm:e2e_request_latency_seconds_sum" + labels + "} 2\n",
        std::string("http_requests_total{method=\"GET\",handler=\"/health\",status=\"200\"} 1\n")})
    EXPECT_NE(text.find("\n" + line), std::string::npos) << line << text;
}

TEST(StatsLog, SaysWhatHappened) {
  engine::EngineStats before, after;
  EXPECT_TRUE(describe_interval(before, after, 0, 10).empty());
  after.num_steps = 3;
  after.num_output_tokens = 50;
  after.num_pages = 4;
  after.acceptance.add_round(4, 2);
  after.acceptance.add_round(4, 4);
  const auto lines = describe_interval(before, after, 1, 10);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_NE(lines[0].find("Avg generation throughput: 5.0 tokens/s"), std::string::npos);
  EXPECT_EQ(lines[1],
            "SpecDecoding metrics: Mean acceptance length: 4.00, Accepted throughput: 0.60 "
            "tokens/s, Drafted throughput: 0.80 tokens/s, Accepted: 6 tokens, Drafted: 8 tokens, "
            "Per-position acceptance rate: 1.000, 1.000, 0.500, 0.500, Avg Draft acceptance rate: "
            "75.0%");
}

}  // namespace
}  // namespace tandem::server
