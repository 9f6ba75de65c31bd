// How long a client may take: with limits of a second, over real sockets.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "server/http_server.h"

namespace tandem::server {
namespace {

// Is woken a hundred times before there is something to send.
class LateSource : public ReplySource {
 public:
  void start(std::function<void()> wake) override { wake_ = std::move(wake); }
  ReplyPart poll() override {
    ReplyPart part;
    if (num_polls_ == 0) part.head.emplace();
    part.done = ++num_polls_ > 100;
    if (part.done) part.data = "late";
    wake_();
    return part;
  }
  void cancel() override {}

 private:
  std::function<void()> wake_;
  int num_polls_ = 0;
};

class NoSource : public ReplySource {
 public:
  void start(std::function<void()>) override {}
  ReplyPart poll() override { return {}; }
  void cancel() override {}
};

class OkHandler : public HttpHandler {
 public:
  Reply handle(const HttpRequest& request) override {
    Reply reply;
    reply.body = request.method == "GET" || request.method == "POST" ? "ok" : "another method";
    if (request.path == "/late") reply.source = std::make_shared<LateSource>();
    if (request.path == "/never") reply.source = std::make_shared<NoSource>();
    return reply;
  }
  std::optional<Reply> refuse_head(const HttpRequest&) override { return std::nullopt; }
  Reply refuse(int status, const std::string& message) override {
    Reply reply;
    reply.head.status = status;
    reply.body = message;
    return reply;
  }
  void count(const HttpRequest& request, int status, double) override {
    last_query = request.query;
    last_status = status;
  }

  std::string last_query;
  std::atomic<int> last_status = 0;
};

class Client {
 public:
  explicit Client(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(const std::string& text) {
    EXPECT_EQ(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // Sends the bytes one after the other, a pause before each, until the server closes.
  void drip(const std::string& text, int pause_ms) {
    for (const char c : text) {
      pollfd entry{socket_, POLLIN, 0};
      if (::poll(&entry, 1, pause_ms) > 0) return;
      if (::send(socket_, &c, 1, MSG_NOSIGNAL) != 1) return;
    }
  }
  // All that comes until the server closes, or 20 s have passed.
  std::string read_all() {
    std::string text;
    char buffer[4096];
    pollfd entry{socket_, POLLIN, 0};
    while (::poll(&entry, 1, 20'000) > 0) {
      const ssize_t count = ::recv(socket_, buffer, sizeof(buffer), 0);
      if (count <= 0) return text;
      text.append(buffer, static_cast<size_t>(count));
    }
    ADD_FAILURE() << "still open";
    return text;
  }

 private:
  int socket_;
};

class HttpLimits : public testing::Test {
 protected:
  void SetUp() override {
    HttpServerOptions options;
    options.port = 0;
    options.keep_alive_seconds = options.header_seconds = options.body_seconds = 1;
    auto server = HttpServer::open(handler_, options);
    ASSERT_TRUE(server.has_value()) << server.error().message;
    server_ = std::move(*server);
  }
  // A limit of a second, and what a busy machine adds.
  static void expect_about_a_second(const base::Stopwatch& clock) {
    EXPECT_GT(clock.seconds(), 0.8);
    EXPECT_LT(clock.seconds(), 15);
  }

  OkHandler handler_;
  std::unique_ptr<HttpServer> server_;
};

constexpr const char* kPost = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";

TEST_F(HttpLimits, AClientThatIsQuickIsServed) {
  Client client(server_->port());
  client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab");
  EXPECT_TRUE(client.read_all().starts_with("HTTP/1.1 200 "));
}

// A body behind it would be read as the next reply.
TEST_F(HttpLimits, TheReplyToHeadIsAHead) {
  Client client(server_->port());
  client.send(
      "HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string replies = client.read_all();
  EXPECT_NE(replies.find("Content-Length: 2\r\n"), std::string::npos)
      << "as GET has it: " << replies;
  const size_t second = replies.find("\r\n\r\n") + 4;
  EXPECT_TRUE(replies.substr(second).starts_with("HTTP/1.1 200 ")) << replies;
  EXPECT_TRUE(replies.ends_with("\r\n\r\nok")) << replies;
}

// Nobody waits for what would be a stream's body.
TEST_F(HttpLimits, TheReplyToHeadOfAStreamIsAHead) {
  Client client(server_->port());
  client.send("HEAD /late HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string reply = client.read_all();
  EXPECT_TRUE(reply.starts_with("HTTP/1.1 200 ")) << reply;
  EXPECT_EQ(reply.find("\r\n\r\n"), reply.size() - 4) << reply;
}

// A stream gets a comment for its silence, not for how often somebody looked.
TEST_F(HttpLimits, AStreamThatIsSilentForAMomentGetsNoComment) {
  Client client(server_->port());
  client.send("GET /late HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string reply = client.read_all();
  EXPECT_TRUE(reply.ends_with("\r\n\r\n4\r\nlate\r\n0\r\n\r\n")) << reply;
}

// HTTP/1.0 knows no 100: it would be taken for the reply.
TEST_F(HttpLimits, NobodyTellsHttp10ToGoOn) {
  Client client(server_->port());
  client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab");
  EXPECT_TRUE(client.read_all().starts_with("HTTP/1.1 200 "));
}

// What is counted of a client that goes away before there is a reply.
TEST_F(HttpLimits, AClientThatGoesAwayFirst) {
  auto client = std::make_unique<Client>(server_->port());
  client->send("GET /never?a=b&c HTTP/1.1\r\nHost: x\r\n\r\n");
  while (server_->num_busy() == 0) std::this_thread::yield();
  client.reset();
  const base::Stopwatch clock;
  while (handler_.last_status == 0 && clock.seconds() < 20) std::this_thread::yield();
  EXPECT_EQ(handler_.last_status, 499);
  EXPECT_EQ(handler_.last_query, "a=b&c");
}

// Announcing costs a client nothing.
TEST_F(HttpLimits, AnAnnouncedBodyTakesNoMemory) {
  const auto address_space = [] {
    int64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    return pages * ::sysconf(_SC_PAGESIZE);
  };
  const int64_t before = address_space();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
    clients.back()->send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 67108864\r\n\r\n{");
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_LT(address_space() - before, int64_t{512} << 20);
}

TEST_F(HttpLimits, IdleConnection) {
  Client client(server_->port());
  const base::Stopwatch clock;
  EXPECT_EQ(client.read_all(), "");
  expect_about_a_second(clock);
}

TEST_F(HttpLimits, HeaderThatNeverEnds) {
  Client client(server_->port());
  const base::Stopwatch clock;
  client.drip("GET / HTTP/1.1\r\nHost: " + std::string(100'000, 'x'), 20);
  client.read_all();
  expect_about_a_second(clock);
}

TEST_F(HttpLimits, BodyThatStops) {
  Client client(server_->port());
  client.send(kPost);
  const base::Stopwatch clock;
  client.send("abc");
  EXPECT_EQ(client.read_all().find("200"), std::string::npos);
  expect_about_a_second(clock);
}

// A byte now and then is no progress: the limit is for the whole body.
TEST_F(HttpLimits, BodyByteByByte) {
  Client client(server_->port());
  client.send(kPost);
  const base::Stopwatch clock;
  client.drip(std::string(999, 'a'), 20);
  EXPECT_EQ(client.read_all().find("200"), std::string::npos);
  expect_about_a_second(clock);
  EXPECT_EQ(server_->num_busy(), 0);
}

}  // namespace
}  // namespace tandem::server
