#include "server/http_connection.h"

#include <poll.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <chrono>

#include "base/ascii.h"
#include "base/clock.h"
#include "base/log.h"

namespace tandem::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using std::chrono::seconds;

constexpr size_t kBufferBytes = size_t{64} << 10;  // also the longest line of a chunked body
constexpr auto kTick = std::chrono::milliseconds(500);
constexpr double kCommentSeconds = 15;  // proxies cut streams that are silent for a minute
constexpr int kClientGone = 499;        // before a reply, for metrics: nginx's number
constexpr size_t kSlowestBytesPerSecond = size_t{64} << 10;

auto token(beast::error_code& error) {
  return asio::redirect_error(asio::use_awaitable, error);
}

// Counts a request while it is answered, whatever way that ends.
class BusyGuard {
 public:
  explicit BusyGuard(std::atomic<int64_t>& counter) : counter_(counter) { counter_.fetch_add(1); }
  ~BusyGuard() { counter_.fetch_sub(1); }
  BusyGuard(const BusyGuard&) = delete;
  BusyGuard& operator=(const BusyGuard&) = delete;

 private:
  std::atomic<int64_t>& counter_;
};

std::string_view view(beast::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

HttpConnection::HttpConnection(HttpShared& shared, asio::ip::tcp::socket socket)
    : shared_(shared),
      entry_(shared.table, [this] { close_soon(); }),
      stream_(std::move(socket)),
      timer_(stream_.get_executor()),
      buffer_(kBufferBytes) {
  shared_.num_connections.fetch_add(1);
}

HttpConnection::~HttpConnection() {
  hold_body(0);
  shared_.num_connections.fetch_sub(1);
}

// The last reference may go with the posted handler, on the connection's own executor.
void HttpConnection::close_soon() {
  auto self = weak_from_this().lock();
  if (!self) return;
  const auto executor = timer_.get_executor();
  asio::post(executor, [self = std::move(self)] {
    self->stream_.close();
    self->timer_.cancel();
  });
}

HttpConnection::Awaitable<void> HttpConnection::run() {
  beast::error_code ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  while (true) {
    status_ = 0;
    hold_body(0);
    HttpRequest request;
    const bool has_request = co_await read_request(request);
    if (!has_request) break;
    const base::Stopwatch watch;
    const BusyGuard busy(shared_.num_busy);
    const bool keep_alive = parser_->get().keep_alive();
    Reply reply;
    co_await call_handler(request, reply);
    const bool goes_on = co_await send(reply, keep_alive);
    shared_.handler.count(request, status_ != 0 ? status_ : kClientGone, watch.seconds());
    if (!goes_on || !keep_alive) break;
  }
  co_await linger();
}

HttpConnection::Awaitable<bool> HttpConnection::read_request(HttpRequest& request) {
  is_head_ = false;
  const bool has_head = co_await read_head();
  if (!has_head) co_return false;
  is_head_ = parser_->get().method() == http::verb::head;
  int status = 400;
  const std::string fault = head_fault(status);
  if (!fault.empty()) {
    co_await refuse(status, fault);
    co_return false;
  }
  auto& message = parser_->get();
  http_1_0_ = message.version() == 10;
  // HEAD asks for what GET would get, without its body (RFC 9110, 9.3.2).
  request.method = is_head_ ? "GET" : std::string(view(message.method_string()));
  const std::string target = origin_form(view(message.target()));
  const size_t end = std::min(target.find('?'), target.size());
  request.path = target.substr(0, end);
  request.query = target.substr(std::min(end + 1, target.size()));
  const std::string& root = shared_.options.root_path;
  const bool below = request.path.starts_with(root) && request.path.size() > root.size() &&
                     request.path[root.size()] == '/';
  if (below) request.path.erase(0, root.size());
  for (const auto& field : message)
    request.headers.emplace_back(base::lower_case(view(field.name_string())), view(field.value()));
  if (!parser_->is_done()) {
    const bool accepted = co_await accept_body(request);
    if (!accepted) co_return false;
    const bool has_body = co_await read_body();
    if (!has_body) co_return false;
  }
  request.body = std::move(message.body());
  co_return true;
}

HttpConnection::Awaitable<bool> HttpConnection::read_head() {
  beast::error_code error;
  const HttpServerOptions& options = shared_.options;
  const ConnectionTable::Waiting waiting(entry_);
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(options.max_header_bytes));
  parser_->body_limit(options.max_body_bytes);
  if (buffer_.size() == 0) {
    // Between requests nobody waits for a reply: closing is silent.
    stream_.expires_after(seconds(options.keep_alive_seconds));
    const size_t count = co_await stream_.async_read_some(buffer_.prepare(4096), token(error));
    if (error) co_return false;
    buffer_.commit(count);
  }
  stream_.expires_after(seconds(options.header_seconds));
  co_await http::async_read_header(stream_, buffer_, *parser_, token(error));
  if (!error) co_return true;
  co_await refuse_error(error);
  co_return false;
}

std::string HttpConnection::head_fault(int& status) const {
  const auto& message = parser_->get();
  const auto count = [&](http::field name) { return message.count(name); };
  if (message.version() != 10 && message.version() != 11) {
    status = 505;
    return "HTTP: expected version 1.0 or 1.1";
  }
  const auto num_fields = static_cast<size_t>(std::distance(message.begin(), message.end()));
  if (num_fields > shared_.options.max_header_fields) {
    status = 431;
    return fmt::format("headers: expected at most {} fields, got {}",
                       shared_.options.max_header_fields, num_fields);
  }
  // Two ways to read a message's length are two messages to somebody in front of this server.
  if (count(http::field::content_length) > 1) return "Content-Length: expected it once";
  if (count(http::field::transfer_encoding) > 1) return "Transfer-Encoding: expected it once";
  if (count(http::field::host) > 1) return "Host: expected it once";
  const auto encoding = message.find(http::field::transfer_encoding);
  if (encoding != message.end()) {
    if (count(http::field::content_length) > 0)
      return "Content-Length: expected none with Transfer-Encoding";
    if (base::lower_case(view(encoding->value())) != "chunked")
      return "Transfer-Encoding: expected \"chunked\"";
    if (message.version() == 10) return "Transfer-Encoding: expected none in HTTP/1.0";
  }
  if (message.version() == 11 && count(http::field::host) == 0)
    return "Host: expected it, got none";
  if (origin_form(view(message.target())).empty())
    return "HTTP: expected a path that begins with /";
  return {};
}

// Says whether the client may send its body, and tells it so when it waits for that.
HttpConnection::Awaitable<bool> HttpConnection::accept_body(const HttpRequest& request) {
  std::optional<Reply> refusal = shared_.handler.refuse_head(request);
  if (refusal) {
    co_await send(*refusal, false);
    shared_.handler.count(request, status_, 0);
    co_return false;
  }
  const auto expect = parser_->get().find(http::field::expect);
  if (expect != parser_->get().end() && !http_1_0_) {
    if (base::lower_case(view(expect->value())) != "100-continue") {
      const std::string message = "Expect: expected \"100-continue\"";
      co_await refuse(417, message);
      co_return false;
    }
    const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    const bool written = co_await write(go_on);
    co_return written;
  }
  co_return true;
}

HttpConnection::Awaitable<bool> HttpConnection::read_body() {
  beast::error_code error;
  const ConnectionTable::Waiting waiting(entry_);
  stream_.expires_after(seconds(shared_.options.body_seconds));
  while (!parser_->is_done()) {
    co_await http::async_read_some(stream_, buffer_, *parser_, token(error));
    if (error) {
      co_await refuse_error(error);
      co_return false;
    }
    if (hold_body(parser_->get().body().size())) continue;
    const std::string message = "body: the server holds too many large requests; try again";
    co_await refuse(503, message);
    co_return false;
  }
  co_return true;
}

bool HttpConnection::hold_body(size_t count) {
  const size_t others = shared_.body_bytes.fetch_add(count - held_body_bytes_) - held_body_bytes_;
  held_body_bytes_ = count;
  return count <= shared_.options.max_total_body_bytes &&
         others <= shared_.options.max_total_body_bytes - count;
}

HttpConnection::Awaitable<void> HttpConnection::refuse_error(beast::error_code error) {
  const HttpServerOptions& options = shared_.options;
  if (error == http::error::end_of_stream || error == http::error::partial_message ||
      error == asio::error::connection_reset || error == asio::error::operation_aborted)
    co_return;
  if (error == beast::error::timeout) co_return;  // the socket is closed already
  int status = 400;
  std::string message = "HTTP: expected a valid request, got a broken one: " + error.message();
  if (error == http::error::header_limit) {
    status = 431;
    message = fmt::format("headers: expected at most {} bytes, got more", options.max_header_bytes);
  } else if (error == http::error::body_limit) {
    status = 413;
    message = fmt::format("body: expected at most {} bytes, got more", options.max_body_bytes);
  }
  co_await refuse(status, message);
}

HttpConnection::Awaitable<void> HttpConnection::refuse(int status, const std::string& message) {
  Reply reply = shared_.handler.refuse(status, message);
  const HttpRequest unknown;
  shared_.handler.count(unknown, status, 0);
  co_await send(reply, false);
}

// Cheap routes are answered here and now, so that they stay quick while others are busy.
HttpConnection::Awaitable<void> HttpConnection::call_handler(const HttpRequest& request,
                                                             Reply& reply) {
  const auto call = [this, &request, &reply] {
    try {
      reply = shared_.handler.handle(request);
    } catch (const std::exception& error) {
      base::log_error("{} {}: {}", request.method, request.path.substr(0, 100), error.what());
      reply = shared_.handler.refuse(500, "the request could not be handled");
    }
  };
  if (request.body.empty()) {
    call();
    co_return;
  }
  const auto task = [&call]() -> Awaitable<void> {
    call();
    co_return;
  };
  co_await asio::co_spawn(shared_.workers, task, asio::use_awaitable);
}

HttpConnection::Awaitable<bool> HttpConnection::send(Reply& reply, bool keep_alive) {
  streaming_ = false;
  bool goes_on = false;
  if (reply.source) {
    goes_on = co_await send_source(*reply.source, keep_alive);
  } else {
    ReplyPart part;
    part.head = std::move(reply.head);
    part.data = std::move(reply.body);
    part.done = true;
    goes_on = co_await send_part(part, keep_alive);
  }
  co_return goes_on;
}

HttpConnection::Awaitable<bool> HttpConnection::send_source(ReplySource& source, bool keep_alive) {
  source.start([weak = weak_from_this(), executor = stream_.get_executor()] {
    const auto self = weak.lock();
    if (!self || self->woken_.exchange(true)) return;
    asio::post(executor, [self] { self->timer_.cancel(); });
  });
  may_watch_ = true;
  base::Stopwatch silence;
  while (true) {
    woken_.store(false);
    ReplyPart part = source.poll();
    const bool has_part = part.head || !part.data.empty() || part.done;
    if (!has_part && streaming_ && silence.seconds() >= kCommentSeconds)
      part.data = ": still working\n\n";
    if (has_part || !part.data.empty()) {
      silence.restart();
      const bool sent = co_await send_part(part, keep_alive);
      if (!sent || (is_head_ && !part.done)) break;
      if (part.done) co_return !http_1_0_ || !streaming_;
      continue;
    }
    if (client_gone()) break;
    watch_for_disconnect();
    if (!woken_.load()) co_await wait_for_more();
    if (client_gone()) break;
  }
  source.cancel();
  co_return false;
}

HttpConnection::Awaitable<bool> HttpConnection::send_part(const ReplyPart& part, bool keep_alive) {
  std::string text;
  const bool chunked = !http_1_0_;
  if (part.head) {
    status_ = part.head->status;
    streaming_ = !part.done;
    const BodyFraming framing = part.done ? BodyFraming::kLength
                                : chunked ? BodyFraming::kChunked
                                          : BodyFraming::kUntilClose;
    text = head_text(*part.head, framing, part.data.size(),
                     keep_alive && framing != BodyFraming::kUntilClose);
  }
  if (is_head_) {
    // A body would be taken for the next reply.
  } else if (streaming_ && chunked) {
    if (!part.data.empty()) text += chunk_text(part.data);
    if (part.done) text += kLastChunk;
  } else {
    text += part.data;
  }
  const bool written = co_await write(text);
  co_return written;
}

HttpConnection::Awaitable<void> HttpConnection::wait_for_more() {
  beast::error_code ignored;
  timer_.expires_after(kTick);
  co_await timer_.async_wait(token(ignored));
}

HttpConnection::Awaitable<bool> HttpConnection::write(const std::string& text) {
  if (text.empty()) co_return true;
  beast::error_code error;
  const ConnectionTable::Waiting waiting(entry_);
  stream_.expires_after(seconds(shared_.options.write_seconds) +
                        seconds(text.size() / kSlowestBytesPerSecond));
  co_await asio::async_write(stream_, asio::buffer(text), token(error));
  stream_.expires_never();
  co_return !error;
}

// Lets the client read a refusal before the connection is reset by what it still sends.
HttpConnection::Awaitable<void> HttpConnection::linger() {
  beast::error_code error;
  const ConnectionTable::Waiting waiting(entry_);
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  stream_.expires_after(seconds(2));
  buffer_.clear();
  while (!error) co_await stream_.async_read_some(buffer_.prepare(kBufferBytes), token(error));
  stream_.close();
}

void HttpConnection::watch_for_disconnect() {
  if (watching_ || !may_watch_ || buffer_.size() > 0) return;
  watching_ = true;
  may_watch_ = false;
  stream_.socket().async_wait(asio::ip::tcp::socket::wait_read,
                              [self = shared_from_this()](beast::error_code error) {
                                self->watching_ = false;
                                if (!error) self->timer_.cancel();
                              });
}

bool HttpConnection::client_gone() {
  pollfd entry{stream_.socket().native_handle(), POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace tandem::server
