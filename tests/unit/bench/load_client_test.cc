// The client against a small server whose answers are written here.
#include "bench/load_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "bench/serve_bench.h"

namespace tandem::bench {
namespace {

// Answers every request with `parts`, one after the other with a pause before each.
class ScriptedServer {
 public:
  ScriptedServer(std::vector<std::string> parts, int pause_ms)
      : parts_(std::move(parts)), pause_ms_(pause_ms) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    ::listen(listener_, 64);
    socklen_t size = sizeof(address);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~ScriptedServer() {
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    ::close(listener_);
    for (std::thread& worker : workers_) worker.join();
  }

  Endpoint endpoint() const {
    Endpoint endpoint;
    endpoint.host = "127.0.0.1";
    endpoint.port = port_;
    if (!resolve(endpoint)) throw std::runtime_error("no loopback");
    return endpoint;
  }
  int most_at_once() const { return most_.load(); }
  std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void accept_all() {
    while (true) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      workers_.emplace_back([this, fd] { answer(fd); });
    }
  }

  void answer(int fd) {
    const int now = ++active_;
    int most = most_.load();
    while (now > most && !most_.compare_exchange_weak(most, now)) {
    }
    std::array<char, 4096> buffer{};
    const ssize_t count = ::recv(fd, buffer.data(), buffer.size(), 0);
    {
      const std::lock_guard lock(mutex_);
      requests_.emplace_back(buffer.data(), static_cast<size_t>(std::max<ssize_t>(count, 0)));
    }
    for (const std::string& part : parts_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms_));
      if (::send(fd, part.data(), part.size(), MSG_NOSIGNAL) < 0) break;
    }
    --active_;
    ::close(fd);
  }

  std::vector<std::string> parts_;
  int pause_ms_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<int> active_{0}, most_{0};
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<std::thread> workers_;
  std::thread acceptor_;
};

const std::string kHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
const std::string kEnd =
    "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 4, \"completion_tokens\": 5}}\n\n"
    "data: [DONE]\n\n";

std::string event(const std::string& text) {
  return "data: {\"choices\": [{\"text\": \"" + text + "\"}]}\n\n";
}

std::vector<RequestOutcome> send(const Endpoint& endpoint, int64_t count,
                                 const LoadClientOptions& options = {},
                                 std::optional<int64_t> abort_after = {}) {
  int64_t sent = 0;
  const auto next = [&]() -> std::optional<PlannedRequest> {
    if (sent == count) return std::nullopt;
    PlannedRequest request;
    request.prompt = static_cast<size_t>(sent++);
    request.path = "/v1/completions";
    request.body = "{\"n\":" + std::to_string(request.prompt) + "}";
    request.abort_after = abort_after;
    return request;
  };
  return run_load(endpoint, options, next, [] { return false; });
}

TEST(LoadClientTest, ReadsAStreamAndItsTimes) {
  const ScriptedServer server({kHead, event("a"), event("bc") + event("d"), kEnd}, 20);
  const auto outcomes = send(server.endpoint(), 1);
  ASSERT_EQ(outcomes.size(), 1U);
  const RequestOutcome& one = outcomes[0];
  EXPECT_TRUE(one.success) << one.error;
  EXPECT_EQ(one.status, 200);
  EXPECT_EQ(one.text, "abcd");
  EXPECT_EQ(one.num_prompt_tokens, 4);
  EXPECT_EQ(one.num_output_tokens, 5);
  ASSERT_EQ(one.part_times.size(), 3U);
  EXPECT_GE(one.ttft, 0.04);
  EXPECT_GE(one.part_times[1] - one.part_times[0], 0.015);
  // The end of the answer is its last content; usage came 20 ms later.
  EXPECT_DOUBLE_EQ(one.latency, one.part_times[2] - one.start);
  const std::string request = server.requests().at(0);
  EXPECT_TRUE(request.starts_with("POST /v1/completions HTTP/1.1\r\n")) << request;
  EXPECT_TRUE(request.ends_with("{\"n\":0}")) << request;
}

TEST(LoadClientTest, KeepsToItsConcurrency) {
  const ScriptedServer server({kHead, event("a"), kEnd}, 5);
  const auto outcomes = send(server.endpoint(), 12, {.max_concurrency = 3});
  EXPECT_EQ(outcomes.size(), 12U);
  EXPECT_TRUE(std::ranges::all_of(outcomes, [](const auto& one) { return one.success; }));
  EXPECT_LE(server.most_at_once(), 3);
  EXPECT_GE(server.most_at_once(), 2);
}

TEST(LoadClientTest, ARefusalIsCountedWithItsReason) {
  const ScriptedServer server({"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 31\r\n\r\n"
                               "{\"error\":{\"message\":\"no room\"}}\n"},
                              0);
  const auto outcomes = send(server.endpoint(), 1);
  EXPECT_EQ(outcomes.at(0).status, 429);
  EXPECT_FALSE(outcomes[0].success);
  EXPECT_EQ(outcomes[0].error, "no room");
}

TEST(LoadClientTest, AStreamThatBreaksOffIsAFailure) {
  const ScriptedServer server({kHead, event("a")}, 0);
  const auto outcomes = send(server.endpoint(), 1);
  EXPECT_FALSE(outcomes.at(0).success);
  EXPECT_EQ(outcomes[0].error, "the stream ended without [DONE]");
  const ScriptedServer faulty({kHead, "data: {\"error\": {\"message\": \"broken\"}}\n\n", kEnd}, 0);
  EXPECT_EQ(send(faulty.endpoint(), 1).at(0).error, "broken");
}

TEST(LoadClientTest, HangsUpAsPlanned) {
  const ScriptedServer server({kHead, event("a"), event("b"), event("c"), kEnd}, 10);
  const auto outcomes = send(server.endpoint(), 1, {}, 2);
  EXPECT_TRUE(outcomes.at(0).aborted);
  EXPECT_FALSE(outcomes[0].success);
  EXPECT_EQ(outcomes[0].part_times.size(), 2U);
}

TEST(LoadClientTest, TimesOutAndNoticesThatNobodyIsThere) {
  const ScriptedServer slow({kHead, event("a"), kEnd}, 2000);
  const auto outcomes = send(slow.endpoint(), 1, {.timeout_seconds = 0.5});
  EXPECT_EQ(outcomes.at(0).error, "no time left");
  Endpoint nobody = slow.endpoint();
  nobody.port = 1;
  ASSERT_TRUE(resolve(nobody));
  EXPECT_FALSE(send(nobody, 1).at(0).success);
  EXPECT_FALSE(ask(nobody, "GET", "/health"));
}

TEST(LoadClientTest, TokensAreCountedByUsageThenByIdsThenByParts) {
  const auto tokens = [](const std::string& last) {
    const ScriptedServer server({kHead,
                                 "data: {\"choices\": [{\"text\": \"\", \"finish_reason\": "
                                 "\"stop\"" +
                                     last + "data: [DONE]\n\n"},
                                0);
    const auto outcomes = send(server.endpoint(), 1);
    EXPECT_TRUE(outcomes.at(0).success) << outcomes[0].error;
    return outcomes[0].num_output_tokens;
  };
  EXPECT_EQ(tokens("}], \"usage\": {\"completion_tokens\": 0}}\n\n"), 0);
  EXPECT_EQ(tokens(", \"token_ids\": [5, 6, 7]}]}\n\n"), 3);
  EXPECT_EQ(tokens("}]}\n\n"), 1);
}

TEST(LoadClientTest, AHeadBeforeSilenceHasItsStatus) {
  const ScriptedServer server({kHead, "", "", "", "", "", event("a"), kEnd}, 200);
  const auto outcomes = send(server.endpoint(), 1, {.timeout_seconds = 0.5});
  EXPECT_EQ(outcomes.at(0).error, "no time left");
  EXPECT_EQ(outcomes[0].status, 200);
}

TEST(LoadClientTest, NoRequestBeginsBehindTheTimeForSending) {
  const ScriptedServer server({kHead, event("a"), kEnd}, 300);
  // The second waits for room until the first ends, after 0.9 s.
  const auto outcomes = send(server.endpoint(), 5, {.max_concurrency = 1, .send_seconds = 0.8});
  ASSERT_EQ(outcomes.size(), 1U);
  EXPECT_TRUE(outcomes[0].success) << outcomes[0].error;
}

TEST(LoadClientTest, TakesMoreFilesThanTheSoftLimit) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  if (before.rlim_max < 256) GTEST_SKIP() << "a hard limit of " << before.rlim_max << " files";
  const ScriptedServer server({kHead, event("a"), kEnd}, 50);
  const Endpoint endpoint = server.endpoint();
  rlimit few = before;
  few.rlim_cur = 32;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  const auto outcomes = send(endpoint, 40);
  ::setrlimit(RLIMIT_NOFILE, &before);
  for (const RequestOutcome& one : outcomes) EXPECT_TRUE(one.success) << one.error;
}

TEST(ServeBenchTest, AServerWithoutHealthIsAskedAllTheSame) {
  const ScriptedServer server({"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"}, 0);
  ServeBenchOptions options;
  options.endpoint = server.endpoint();
  options.model = "other";
  options.num_prompts = 1;
  options.ready_seconds = 0.2;
  const auto run = run_serve_bench(options, [] { return false; });
  ASSERT_TRUE(run) << run.error().message;
  EXPECT_EQ(run->outcomes.at(0).status, 404);
  EXPECT_FALSE(run->interrupted);
}

TEST(EndpointTest, OfSeveralAddressesTheOneThatAnswersStays) {
  const ScriptedServer server({"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, 0);
  const Endpoint live = server.endpoint();
  Endpoint endpoint = live;
  endpoint.port = 1;  // nobody
  ASSERT_TRUE(resolve(endpoint));
  EXPECT_FALSE(ask_any_address(endpoint, "/health", 5));
  endpoint.other_addresses.emplace_back(live.address, live.address_size);
  const auto answer = ask_any_address(endpoint, "/health", 5);
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(answer->status, 200);
  EXPECT_TRUE(ask(endpoint, "GET", "/health"));
}

TEST(LoadClientTest, WaitsForArrivals) {
  const ScriptedServer server({kHead, event("a"), kEnd}, 0);
  int sent = 0;
  const auto next = [&]() -> std::optional<PlannedRequest> {
    if (sent == 3) return std::nullopt;
    PlannedRequest request;
    request.at_seconds = 0.05 * sent++;
    request.path = "/";
    request.body = "{}";
    return request;
  };
  auto outcomes = run_load(server.endpoint(), {}, next, [] { return false; });
  ASSERT_EQ(outcomes.size(), 3U);
  std::ranges::sort(outcomes, {}, &RequestOutcome::start);
  for (int i = 0; i < 3; ++i) EXPECT_GE(outcomes[static_cast<size_t>(i)].start, 0.05 * i);
}

}  // namespace
}  // namespace tandem::bench
