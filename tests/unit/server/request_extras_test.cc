// Fields that vLLM's users bring along: truncation, names of tokens, ids of requests.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/format.h"
#include "server/request.h"
#include "tests/unit/server/demo_model.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using test::demo_model;

ApiResult<CompletionRequest> completion(json more) {
  json body = {{"prompt", json::array({10, 11, 12, 13, 14})}, {"echo", true}, {"max_tokens", 4}};
  body.update(more);
  return parse_completion(body.dump(), demo_model());
}

using Ids = std::vector<int32_t>;

TEST(RequestExtras, TruncationKeepsTheEndOrTheBeginning) {
  EXPECT_EQ(completion({{"truncate_prompt_tokens", 2}})->prompts[0], (Ids{13, 14}));
  EXPECT_EQ(completion({{"truncate_prompt_tokens", 2}})->echoes[0].ids, (Ids{13, 14}));
  EXPECT_EQ(completion({{"truncate_prompt_tokens", 2}, {"truncation_side", "right"}})->prompts[0],
            (Ids{10, 11}));
  EXPECT_EQ(completion({{"truncate_prompt_tokens", 9}})->prompts[0].size(), 5U);
  EXPECT_EQ(completion({{"truncate_prompt_tokens", -1}})->prompts[0].size(), 5U);
  const json longer = std::vector<int32_t>(2000, 10);
  EXPECT_FALSE(completion({{"prompt", longer}}).has_value());
  EXPECT_EQ(completion({{"prompt", longer}, {"truncate_prompt_tokens", -1}})->prompts[0].size(),
            1020U);
  const auto text = completion({{"prompt", "one two three"}, {"truncate_prompt_tokens", 1}});
  EXPECT_EQ(text->echoes[0].text, demo_model().tokenizer.decode(text->prompts[0], false));
  EXPECT_FALSE(text->echoes[0].hides_bos);
  const json chat = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}},
                     {"truncate_prompt_tokens", 3}};
  EXPECT_EQ(parse_chat(chat.dump(), demo_model())->prompt.size(), 3U);
  for (const json& bad : {json(0), json(-2), json("x"), json(1.5)})
    EXPECT_EQ(completion({{"truncate_prompt_tokens", bad}}).error().param,
              "truncate_prompt_tokens");
  EXPECT_EQ(completion({{"truncation_side", "up"}}).error().param, "truncation_side");
}

TEST(RequestExtras, TokensMayBeNamedByTheirIds) {
  const auto format = make_completion_format(demo_model().tokenizer, {"cmpl-1", 5, "demo"},
                                             {.logprobs = true, .tokens_as_ids = true}, {});
  ChoicePart part;
  part.tokens.push_back(
      {{.token = 300, .logprob = -1, .top = {{.token = 301, .logprob = -0.5F}}}, 0});
  const json reply = json::parse(format->whole({part}, {}, nullptr));
  const json& lists = reply["choices"][0]["logprobs"];
  EXPECT_EQ(lists["tokens"], json({"token_id:300"}));
  EXPECT_EQ(lists["top_logprobs"][0], json({{"token_id:300", -1.0}, {"token_id:301", -0.5}}));
  EXPECT_TRUE(completion({{"return_tokens_as_token_ids", true}})->params.tokens_as_ids);
}

TEST(RequestExtras, RequestId) {
  EXPECT_EQ(completion({{"request_id", "mine"}})->params.request_id, "mine");
  EXPECT_EQ(completion({{"request_id", 3}}).error().param, "request_id");
}

TEST(RequestExtras, BadWordsAsTheyBeginAndAsTheyFollow) {
  const text::Tokenizer& tokenizer = demo_model().tokenizer;
  const auto ids = [&](const char* text) {
    return tokenizer.encode(text, text::SpecialTokens::kDisabled);
  };
  const auto parsed = completion({{"bad_words", {"ship", " ship", "a b"}}});
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(parsed->params.sampling.banned_sequences,
            (std::vector<Ids>{ids("ship"), ids(" ship"), ids("a b"), ids(" a b")}));
  for (const json& bad : {json({""}), json({"  "}), json({1}), json(std::string(2000, 'x')),
                          json(std::vector<std::string>(129, "x"))})
    EXPECT_EQ(completion({{"bad_words", bad}}).error().param, "bad_words") << bad;
}

TEST(RequestExtras, LogprobsOfNamedTokensNeedLogprobs) {
  EXPECT_EQ(completion({{"logprob_token_ids", {5, 6}}, {"logprobs", 0}})
                ->params.sampling.logprob_token_ids,
            (Ids{5, 6}));
  EXPECT_EQ(completion({{"logprob_token_ids", {5}}}).error().param, "logprob_token_ids");
  EXPECT_EQ(completion({{"logprob_token_ids", {4096}}, {"logprobs", 0}}).error().param,
            "logprob_token_ids");
  const json chat = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}},
                     {"logprob_token_ids", {5}}};
  const auto with = [&](json more) {
    json body = chat;
    body.update(more);
    return parse_chat(body.dump(), demo_model());
  };
  EXPECT_EQ(with(json::object()).error().param, "logprob_token_ids");
  EXPECT_EQ(with({{"logprobs", true}, {"top_logprobs", 2}}).error().param, "logprob_token_ids");
  EXPECT_EQ(with({{"logprobs", true}})->params.sampling.logprob_token_ids, Ids{5});
}

TEST(RequestExtras, DraftsAndChunks) {
  const auto parsed = completion({{"num_speculative_tokens", 2}, {"stream_interval", 7}});
  EXPECT_EQ(parsed->params.num_draft_tokens, 2);
  EXPECT_EQ(parsed->params.stream_interval, 7);
  EXPECT_FALSE(completion(json::object())->params.num_draft_tokens.has_value());
  EXPECT_EQ(completion(json::object())->params.stream_interval, 1);
  EXPECT_EQ(completion({{"num_speculative_tokens", 5}}).error().param, "num_speculative_tokens");
  EXPECT_EQ(completion({{"stream_interval", 0}}).error().param, "stream_interval");
}

TEST(RequestExtras, ChatsMayLimitThoughts) {
  json body = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}},
               {"thinking_token_budget", 9},
               {"reasoning_effort", "high"}};
  const auto chat = parse_chat(body.dump(), demo_model());
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  EXPECT_EQ(chat->params.thinking_budget, 9);
  EXPECT_FALSE(chat->params.in_thought);
  body["thinking_token_budget"] = -1;
  EXPECT_EQ(parse_chat(body.dump(), demo_model()).error().param, "thinking_token_budget");
  EXPECT_EQ(completion({{"thinking_token_budget", 9}}).error().param, "thinking_token_budget");
}

TEST(RequestExtras, TemplatesOfRequestsNeedTrust) {
  const json body = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}},
                     {"documents", {{{"title", "T"}}}},
                     {"chat_template", "{{ documents[0].title }}:{{ messages[0].content }}"}};
  EXPECT_EQ(parse_chat(body.dump(), demo_model()).error().param, "chat_template");
  ServedModel trusting = demo_model();
  trusting.trust_templates = true;
  const auto chat = parse_chat(body.dump(), trusting);
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  EXPECT_EQ(trusting.tokenizer.decode(chat->prompt, false), "T:Hello");
  json broken = body;
  broken["chat_template"] = "{% for %}";
  EXPECT_EQ(parse_chat(broken.dump(), trusting).error().param, "chat_template");
  EXPECT_EQ(parse_chat(broken.dump(), trusting).error().status, 400);
}

}  // namespace
}  // namespace tandem::server
