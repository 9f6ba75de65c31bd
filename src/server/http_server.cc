#include "server/http_server.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <optional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/file_limit.h"
#include "base/log.h"
#include "server/http_connection.h"

namespace tandem::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr size_t kOtherFiles = 256;  // models, log, connections that are being closed

// Every connection is a file.
void raise_file_limit(size_t wanted) {
  const uint64_t limit = base::raise_file_limit(wanted);
  if (limit < wanted)
    base::log_warning("http: expected a limit of {} open files, got {}; raise it (ulimit -n)",
                      wanted, limit);
}

}  // namespace

struct HttpServer::Impl {
  Impl(HttpHandler& handler, const HttpServerOptions& options)
      : shared{.handler = handler,
               .options = options,
               .workers = asio::thread_pool(static_cast<size_t>(options.num_threads))},
        context(options.num_threads),
        acceptor(context) {}

  base::Status listen();
  void warn_full();
  asio::awaitable<void> accept();

  HttpShared shared;
  asio::io_context context;
  tcp::acceptor acceptor;
  uint16_t port = 0;
  std::vector<std::thread> threads;
  std::optional<base::Stopwatch> last_warning;
};

void HttpServer::Impl::warn_full() {
  if (last_warning && last_warning->seconds() < 60) return;
  last_warning.emplace();
  base::log_warning(
      "http: all {} connections are in use; those that the server has waited for longest are "
      "closed for new ones",
      shared.options.max_connections);
}

base::Status HttpServer::Impl::listen() {
  const HttpServerOptions& options = shared.options;
  boost::system::error_code error;
  const auto failed = [&] {
    return base::invalid("--host {} --port {}: expected an address to listen on, got: {}",
                         options.host, options.port, error.message());
  };
  tcp::resolver resolver(context);
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error || found.empty()) return failed();
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return failed();
  port = acceptor.local_endpoint().port();
  return {};
}

asio::awaitable<void> HttpServer::Impl::accept() {
  while (true) {
    boost::system::error_code error;
    tcp::socket socket = co_await acceptor.async_accept(
        asio::make_strand(context), asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted) co_return;
    if (error) {
      // Out of file descriptors, say: others must end first.
      base::log_warning("http: a connection could not be accepted: {}", error.message());
      shared.table.evict();
      asio::steady_timer pause(context, std::chrono::milliseconds(100));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    const bool full = shared.num_connections.load() >= shared.options.max_connections;
    if (full) {
      warn_full();
      if (!shared.table.evict()) continue;  // all of them wait for answers: the new one goes
    }
    const auto executor = socket.get_executor();
    auto connection = std::make_shared<HttpConnection>(shared, std::move(socket));
    asio::co_spawn(executor, [connection] { return connection->run(); }, asio::detached);
  }
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

base::Result<std::unique_ptr<HttpServer>> HttpServer::open(HttpHandler& handler,
                                                           const HttpServerOptions& options) {
  raise_file_limit(options.max_connections + kOtherFiles);
  auto impl = std::make_unique<Impl>(handler, options);
  TANDEM_RETURN_IF_ERROR(impl->listen());
  asio::co_spawn(impl->context, impl->accept(), asio::detached);
  for (int i = 0; i < options.num_threads; ++i)
    impl->threads.emplace_back([&context = impl->context] { context.run(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::~HttpServer() {
  impl_->shared.workers.join();
  impl_->context.stop();
  for (std::thread& thread : impl_->threads) thread.join();
}

uint16_t HttpServer::port() const {
  return impl_->port;
}

int64_t HttpServer::num_busy() const {
  return impl_->shared.num_busy.load();
}

}  // namespace tandem::server
