#include "bench/http_reader.h"

#include <gtest/gtest.h>

#include <vector>

#include "bench/endpoint.h"
#include "bench/stream_reader.h"

namespace tandem::bench {
namespace {

constexpr std::string_view kChunked =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    "6\r\ndata: \r\na;note=1\r\none\n\n: hi\n\r\n11\r\n\ndata: [DONE]\r\n\r\n\r\n0\r\nX: y\r\n\r\n";

// The body and whether all of it came, with the bytes given `size` at a time.
std::pair<std::string, bool> read(std::string_view bytes, size_t size) {
  std::string body;
  HttpReader reader([&](std::string_view part) { body += part; });
  for (size_t i = 0; i < bytes.size(); i += size)
    if (const auto status = reader.feed(bytes.substr(i, size)); !status)
      return {status.error().message, false};
  return {body, reader.done()};
}

TEST(HttpReaderTest, ChunksInPiecesOfEverySize) {
  for (size_t size = 1; size <= kChunked.size(); ++size) {
    const auto [body, done] = read(kChunked, size);
    EXPECT_TRUE(done) << size;
    EXPECT_EQ(body, "data: one\n\n: hi\n\ndata: [DONE]\r\n\r\n") << size;
  }
}

TEST(HttpReaderTest, LengthEndsTheBody) {
  const std::string_view bytes =
      "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 5\r\nRetry-After: 1\r\n\r\nhello";
  std::string body;
  HttpReader reader([&](std::string_view part) { body += part; });
  ASSERT_TRUE(reader.feed(bytes.substr(0, bytes.size() - 1)));
  EXPECT_FALSE(reader.done());
  ASSERT_TRUE(reader.feed("o"));
  EXPECT_TRUE(reader.done());
  EXPECT_EQ(body, "hello");
  EXPECT_EQ(reader.status(), 429);
  EXPECT_EQ(reader.header("retry-after"), "1");
  EXPECT_EQ(reader.header("retry"), "");
}

TEST(HttpReaderTest, WithoutALengthTheBodyEndsWithTheConnection) {
  std::string body;
  HttpReader reader([&](std::string_view part) { body += part; });
  ASSERT_TRUE(reader.feed("HTTP/1.1 200 OK\r\n\r\nhel"));
  ASSERT_TRUE(reader.feed("lo"));
  EXPECT_FALSE(reader.done());
  EXPECT_TRUE(reader.finish());
  EXPECT_TRUE(reader.done());
  EXPECT_EQ(body, "hello");
}

TEST(HttpReaderTest, AnEndInTheMiddleIsAFault) {
  for (const std::string_view bytes :
       {"", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"}) {
    HttpReader reader([](std::string_view) {});
    ASSERT_TRUE(reader.feed(bytes));
    EXPECT_FALSE(reader.finish()) << bytes;
  }
}

TEST(HttpReaderTest, RefusesWhatIsNoResponse) {
  for (const std::string_view bytes :
       {"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"})
    EXPECT_FALSE(HttpReader([](std::string_view) {}).feed(bytes)) << bytes;
  EXPECT_FALSE(HttpReader([](std::string_view) {}).feed(std::string(100'000, 'x')));
}

TEST(EventReaderTest, EventsInPiecesOfEverySize) {
  const std::string_view text =
      "data: {\"a\": 1}\r\n\n: still working\n\nevent: x\ndata: [DONE]\n\n";
  for (size_t size = 1; size <= text.size(); ++size) {
    std::vector<std::string> events;
    EventReader reader([&](std::string_view data) { events.emplace_back(data); });
    for (size_t i = 0; i < text.size(); i += size) reader.feed(text.substr(i, size));
    EXPECT_EQ(events, (std::vector<std::string>{"{\"a\": 1}", "[DONE]"})) << size;
  }
}

TEST(StreamReaderTest, CompletionsAndChat) {
  const StreamEvent text = read_event(
      R"({"choices": [{"index": 0, "text": "ab", "token_ids": [7, 8]}], "usage": null})");
  EXPECT_TRUE(text.has_content);
  EXPECT_EQ(text.text, "ab");
  EXPECT_EQ(text.token_ids, (std::vector<int32_t>{7, 8}));
  EXPECT_FALSE(text.num_output_tokens);
  const StreamEvent chat =
      read_event(R"({"choices": [{"delta": {"reasoning": "r", "content": "c"}}]})");
  EXPECT_EQ(chat.text, "rc");
  // The role comes before the first token.
  const StreamEvent role =
      read_event(R"({"choices": [{"delta": {"role": "assistant", "content": ""}}]})");
  EXPECT_FALSE(role.has_content);
  EXPECT_TRUE(read_event(R"({"choices": [{"text": "", "finish_reason": "stop"}]})").has_content);
  // Other servers' name for reasoning: without it their first token was that of the answer.
  EXPECT_EQ(read_event(R"({"choices": [{"delta": {"reasoning_content": "r"}}]})").text, "r");
  EXPECT_EQ(
      read_event(R"({"choices": [{"delta": {"reasoning": "r", "reasoning_content": "r"}}]})").text,
      "r");
  EXPECT_TRUE(
      read_event(R"({"choices": [{"delta": {"reasoning": null, "reasoning_content": "r"}}]})")
          .has_content);
  const StreamEvent usage =
      read_event(R"({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}})");
  EXPECT_FALSE(usage.has_content);
  EXPECT_EQ(usage.num_prompt_tokens, 3);
  EXPECT_EQ(usage.num_output_tokens, 9);
  EXPECT_TRUE(read_event("[DONE]").done);
}

TEST(StreamReaderTest, ErrorsAreTold) {
  EXPECT_EQ(read_event(R"({"error": {"message": "no room"}})").error, "no room");
  EXPECT_EQ(read_event(R"({"choices": [], "error": null})").error, "");
  EXPECT_NE(read_event("{broken").error, "");
  EXPECT_EQ(error_message("<html>"), "<html>");
}

TEST(EndpointTest, BaseUrls) {
  const auto plain = parse_base_url("http://example.test:8123/v1");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->host, "example.test");
  EXPECT_EQ(plain->port, 8123);
  const auto v6 = parse_base_url("http://[::1]:9");
  ASSERT_TRUE(v6);
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->port, 9);
  EXPECT_EQ(parse_base_url("http://localhost")->port, 80);
  // Left out, a server behind a proxy's folder was asked at the proxy's root.
  EXPECT_EQ(parse_base_url("http://proxy/tandem/")->folder, "/tandem");
  EXPECT_EQ(parse_base_url("http://proxy/tandem/v1")->folder, "/tandem");
  EXPECT_EQ(plain->folder, "");
  EXPECT_TRUE(request_bytes(*parse_base_url("http://proxy/tandem"), "GET", "/health", {})
                  .starts_with("GET /tandem/health HTTP/1.1\r\nHost: proxy:80\r\n"));
  for (const char* bad : {"https://x", "localhost:8000", "http://", "http://x:", "http://x:0",
                          "http://x:99999", "http://x:8y", "http://x/a b", "http://x/a?b"})
    EXPECT_FALSE(parse_base_url(bad)) << bad;
}

}  // namespace
}  // namespace tandem::bench
