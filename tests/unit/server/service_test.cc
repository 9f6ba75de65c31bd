// What routes make of headers and paths, without sockets.
#include "server/service.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/server/demo_model.h"

namespace tandem::server {
namespace {

using nlohmann::json;

speculation::SpecResult no_step(const speculation::SpecBatch&) {
  return {};
}

engine::EngineOptions engine_options() {
  engine::EngineOptions options;
  options.limits = {.max_num_seqs = 1,
                    .max_num_batched_tokens = 1,
                    .max_chunk_tokens = 1,
                    .block_size = 4,
                    .num_page_blocks = 64};
  options.ring_len = 8;
  options.num_ring_blocks = 2;
  options.max_model_len = 256;
  options.vocab_size = test::demo_model().vocab_size;
  return options;
}

class ServiceTest : public testing::Test {
 protected:
  Reply ask(const std::string& method, const std::string& path,
            std::vector<std::pair<std::string, std::string>> headers, std::string body = {}) {
    headers.insert(headers.begin(), {"x-api-key", key_});
    return service_.handle({method, path, std::move(headers), std::move(body)});
  }

  ServedModel model_ = [] {
    ServedModel model = test::demo_model();
    model.names = {"folder/demo 100%"};
    return model;
  }();
  engine::Engine engine_{engine_options(), no_step};
  Metrics metrics_{"demo"};
  EngineThread thread_{engine_, {.max_requests = 1}};
  Service service_{{model_, thread_, metrics_}, {.api_keys = {"secret"}}};
  std::string key_ = "secret";
};

TEST_F(ServiceTest, TheSchemeOfAKeyMayBeSpelledInAnyCase) {
  key_ = "";
  for (const char* good : {"Bearer secret", "bearer secret", "BEARER secret"})
    EXPECT_EQ(ask("GET", "/version", {{"authorization", good}}).head.status, 200) << good;
  for (const char* bad : {"Bearer Secret", "Basic secret", "bearersecret", "secret", "bearer "})
    EXPECT_EQ(ask("GET", "/version", {{"authorization", bad}}).head.status, 401) << bad;
}

TEST_F(ServiceTest, TypesOfBodiesMayBeSpelledInAnyCase) {
  const std::string body = R"({"tokens": [300]})";
  for (const char* good : {"application/json", "Application/JSON; charset=UTF-8", ""})
    EXPECT_EQ(ask("POST", "/detokenize", {{"content-type", good}}, body).head.status, 200) << good;
  for (const char* bad : {"text/plain", "application/xml", "json"})
    EXPECT_EQ(ask("POST", "/detokenize", {{"content-type", bad}}, body).head.status, 415) << bad;
  EXPECT_EQ(ask("POST", "/detokenize", {{"content-encoding", "Identity"}}, body).head.status, 200);
  EXPECT_EQ(ask("POST", "/detokenize", {{"content-encoding", "gzip"}}, body).head.status, 415);
}

TEST_F(ServiceTest, TokenizingAChatTakesNoSpecialTokensBesideTheTemplates) {
  const auto tokenize = [&](const json& fields) {
    json body = {{"messages", {{{"role", "user"}, {"content", "hi"}}}}};
    body.update(fields);
    return ask("POST", "/tokenize", {}, body.dump());
  };
  const Reply plain = tokenize(json::object());
  EXPECT_EQ(plain.head.status, 200);
  EXPECT_EQ(tokenize({{"add_special_tokens", false}}).body, plain.body);
  const Reply refused = tokenize({{"add_special_tokens", true}});
  EXPECT_EQ(refused.head.status, 400);
  EXPECT_EQ(json::parse(refused.body)["error"]["param"], "add_special_tokens");
}

// As many as /detokenize takes: the reply of a body of 64 MiB took gigabytes.
TEST_F(ServiceTest, TokensOfAReplyAreBounded) {
  const auto tokenize = [&](size_t num_words) {
    std::string text;
    for (size_t i = 0; i < num_words; ++i) text += "1";
    return ask("POST", "/tokenize", {}, json({{"prompt", text}}).dump());
  };
  EXPECT_EQ(tokenize(10'000).head.status, 200);
  const Reply refused = tokenize(1'000'001);
  EXPECT_EQ(refused.head.status, 400);
  EXPECT_EQ(json::parse(refused.body)["error"]["param"], "prompt");
}

TEST_F(ServiceTest, AStoredResponseIsNotStreamed) {
  const auto status = [&](const std::string& query) {
    const HttpRequest request{.method = "GET",
                              .path = "/v1/responses/resp_1",
                              .headers = {{"x-api-key", key_}},
                              .body = "",
                              .query = query};
    return service_.handle(request).head.status;
  };
  for (const char* whole : {"", "stream=false", "include=x", "upstream=true"})
    EXPECT_EQ(status(whole), 404) << whole;
  for (const char* stream : {"stream=true", "starting_after=3&stream=true"})
    EXPECT_EQ(status(stream), 400) << stream;
}

TEST_F(ServiceTest, NamesOfModelsMayBeEscaped) {
  for (const char* good : {"folder/demo 100%", "folder%2Fdemo%20100%25", "folder%2fdemo%20100%"}) {
    const Reply reply = ask("GET", std::string("/v1/models/") + good, {});
    ASSERT_EQ(reply.head.status, 200) << good;
    EXPECT_EQ(json::parse(reply.body)["id"], "folder/demo 100%");
  }
  for (const char* bad : {"folder", "folder%2", "%", "%zz", "folder%252Fdemo%20100%25"})
    EXPECT_EQ(ask("GET", std::string("/v1/models/") + bad, {}).head.status, 404) << bad;
}

}  // namespace
}  // namespace tandem::server
