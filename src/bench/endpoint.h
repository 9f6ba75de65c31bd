// Where a server is, and one request to it at a time.
#pragma once

#include <sys/socket.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tandem::bench {

struct Endpoint {
  std::string host;
  int port = 8000;
  std::string folder = {};  // in front of every path, as behind a proxy: "/tandem"
  std::vector<std::pair<std::string, std::string>> headers;  // of every request
  sockaddr_storage address = {};
  socklen_t address_size = 0;
  std::vector<std::pair<sockaddr_storage, socklen_t>> other_addresses = {};
};

// "http://127.0.0.1:8000", "http://[::1]:8000" or "http://proxy/tandem". https is refused by name.
base::Result<Endpoint> parse_base_url(const std::string& url);
// Finds the addresses of endpoint.host.
base::Status resolve(Endpoint& endpoint);

// A request as bytes; the server is asked to close afterwards.
std::string request_bytes(const Endpoint& endpoint, std::string_view method, std::string_view path,
                          std::string_view body);

struct HttpAnswer {
  int status = 0;
  std::string body;
};
// Waits for the whole answer. Fails when there is none.
base::Result<HttpAnswer> ask(const Endpoint& endpoint, std::string_view method,
                             std::string_view path, std::string_view body = {},
                             double timeout_seconds = 60);
// GET at each address of the host until one answers, which is the endpoint's from then on:
// "localhost" is ::1 first, and a server may listen at 127.0.0.1 alone.
base::Result<HttpAnswer> ask_any_address(Endpoint& endpoint, std::string_view path,
                                         double timeout_seconds);

// A socket that is not blocking and on its way to the endpoint; -1 with errno when that fails.
int begin_connection(const Endpoint& endpoint);

}  // namespace tandem::bench
