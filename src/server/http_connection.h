// One client's connection: a coroutine that reads requests and writes replies in turn.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <memory>
#include <optional>
#include <string>

#include "server/connection_table.h"
#include "server/http_body.h"
#include "server/http_server.h"
#include "server/http_text.h"

namespace tandem::server {

// What all connections share.
struct HttpShared {
  HttpHandler& handler;
  HttpServerOptions options;
  boost::asio::thread_pool workers;  // for handlers that may take a while
  ConnectionTable table = {};
  std::atomic<size_t> num_connections{0};
  std::atomic<int64_t> num_busy{0};
  std::atomic<size_t> body_bytes{0};  // of all requests that are being read or answered
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  // The socket's executor is a strand: nothing here runs twice at once.
  HttpConnection(HttpShared& shared, boost::asio::ip::tcp::socket socket);
  ~HttpConnection();

  boost::asio::awaitable<void> run();

 private:
  using Parser = boost::beast::http::request_parser<GrowingBody>;
  template <typename T>
  using Awaitable = boost::asio::awaitable<T>;

  // False when the connection is to be closed (a refusal has been sent).
  Awaitable<bool> read_request(HttpRequest& request);
  Awaitable<bool> read_head();
  Awaitable<bool> read_body();
  Awaitable<bool> accept_body(const HttpRequest& request);
  // Counts the bytes that this connection's body holds now; false when all hold too many.
  bool hold_body(size_t count);
  // Empty, or why the head is refused; sets `status`.
  std::string head_fault(int& status) const;
  // What is handed to a coroutine is named and outlives the call: g++ 12 destroys aggregates that
  // are temporaries of a co_await twice.
  Awaitable<void> refuse(int status, const std::string& message);
  Awaitable<void> refuse_error(boost::beast::error_code error);
  Awaitable<void> call_handler(const HttpRequest& request, Reply& reply);
  // False when the client is gone or the connection must close.
  Awaitable<bool> send(Reply& reply, bool keep_alive);
  Awaitable<bool> send_source(ReplySource& source, bool keep_alive);
  Awaitable<bool> send_part(const ReplyPart& part, bool keep_alive);
  Awaitable<void> wait_for_more();
  Awaitable<bool> write(const std::string& text);
  Awaitable<void> linger();
  void close_soon();
  void watch_for_disconnect();
  bool client_gone();

  HttpShared& shared_;
  ConnectionTable::Entry entry_;
  boost::beast::tcp_stream stream_;
  boost::asio::steady_timer timer_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  std::atomic<bool> woken_{false};
  bool watching_ = false;   // a wait for readability is under way
  bool may_watch_ = false;  // once per reply: bytes of a next request would wake it for good
  bool http_1_0_ = false;
  bool is_head_ = false;    // the reply is a head alone
  bool streaming_ = false;  // the head of a reply without a length has been sent
  int status_ = 0;
  size_t held_body_bytes_ = 0;
};

}  // namespace tandem::server
