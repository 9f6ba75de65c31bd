// A device that fails in the middle of a stream: the client hears of it, the server ends with an
// error.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>

#include "base/clock.h"
#include "server/server.h"
#include "tests/unit/server/demo_model.h"

namespace tandem::server {
namespace {

using namespace std::chrono_literals;

constexpr int kLastStep = 20;

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

uint16_t free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

// Everything the server says until it closes.
std::string ask(uint16_t port, const std::string& body) {
  int socket = -1;
  const sockaddr_in address = loopback(port);
  for (int i = 0; i < 1000; ++i) {
    socket = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) break;
    ::close(socket);
    std::this_thread::sleep_for(10ms);
  }
  const std::string request =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
      "application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body;
  EXPECT_EQ(::send(socket, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  std::string text;
  char buffer[4096];
  pollfd entry{socket, POLLIN, 0};
  while (::poll(&entry, 1, 20'000) > 0) {
    const ssize_t count = ::recv(socket, buffer, sizeof(buffer), 0);
    if (count <= 0) break;
    text.append(buffer, static_cast<size_t>(count));
  }
  ::close(socket);
  return text;
}

engine::EngineOptions engine_options() {
  engine::EngineOptions options;
  options.limits = {.max_num_seqs = 2,
                    .max_num_batched_tokens = 16,
                    .max_chunk_tokens = 16,
                    .block_size = 4,
                    .num_page_blocks = 1024};
  options.ring_len = 8;
  options.num_ring_blocks = 4;
  options.max_model_len = 1024;
  options.vocab_size = test::demo_model().vocab_size;
  return options;
}

TEST(Fault, ClientsAreToldAndTheServerEnds) {
  std::atomic<int> num_steps{0};
  engine::Engine engine(engine_options(), [&](const speculation::SpecBatch& batch) {
    if (++num_steps > kLastStep) throw std::runtime_error("CUDA: an illegal address");
    speculation::SpecResult result;
    for (const speculation::SpecSequence& sequence : batch.sequences) {
      result.sequences.emplace_back();
      if (!sequence.samples) continue;
      result.sequences.back().tokens.push_back({.token = 300, .logprob = 0, .top = {}});
      sequence.sampler->commit(300);
    }
    return result;
  });
  ServeOptions options;
  options.http.port = free_port();
  options.engine.max_requests = 4;
  auto served = std::async(std::launch::async, [&] {
    return serve(engine, test::demo_model(), options, [] { return false; });
  });
  const std::string stream =
      ask(options.http.port, R"({"prompt": "a", "max_tokens": 500, "stream": true})");
  const base::Stopwatch clock;
  EXPECT_TRUE(stream.starts_with("HTTP/1.1 200 ")) << stream.substr(0, 300);
  EXPECT_NE(stream.find("\"text\""), std::string::npos);
  EXPECT_NE(stream.find("the server's device failed"), std::string::npos);
  EXPECT_EQ(stream.find("CUDA"), std::string::npos);
  EXPECT_EQ(stream.find("[DONE]"), std::string::npos);
  ASSERT_EQ(served.wait_for(10s), std::future_status::ready);
  EXPECT_LT(clock.seconds(), 10);
  const base::Status status = served.get();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, base::ErrorCode::kInternal);
  EXPECT_EQ(num_steps.load(), kLastStep + 1);
}

// A step that never ends, and a signal to stop.
void stop_while_stuck(double stuck_seconds) {
  engine::Engine engine(engine_options(), [](const speculation::SpecBatch&) {
    std::this_thread::sleep_for(600s);
    return speculation::SpecResult();
  });
  ServeOptions options;
  options.http.port = free_port();
  options.shutdown_seconds = 0;
  options.engine = {.max_requests = 4, .stuck_seconds = stuck_seconds};
  std::thread client([&] { ask(options.http.port, R"({"prompt": "a", "max_tokens": 5})"); });
  const base::Stopwatch clock;
  (void)serve(engine, test::demo_model(), options, [&] { return clock.seconds() > 1; });
  client.join();
}

TEST(FaultDeathTest, AStepThatHangsDoesNotKeepTheServerFromStopping) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const base::Stopwatch clock;
  EXPECT_EXIT(stop_while_stuck(100), testing::ExitedWithCode(0), "in the middle of a step");
  EXPECT_EXIT(stop_while_stuck(0.1), testing::ExitedWithCode(1), "takes longer than");
  EXPECT_LT(clock.seconds(), 60);
}

}  // namespace
}  // namespace tandem::server
