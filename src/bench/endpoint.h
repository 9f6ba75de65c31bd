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
  std::vector<std::pair<std::string, std::string>> headers;  // of every request
  sockaddr_storage address = {};
  socklen_t address_size = 0;
};

// "http://127.0.0.1:8000" or "http://[::1]:8000"; a path is left out. https is refused by name.
base::Result<Endpoint> parse_base_url(const std::string& url);
// Finds the address of endpoint.host.
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

// A socket that is not blocking and on its way to the endpoint; -1 with errno when that fails.
int begin_connection(const Endpoint& endpoint);

}  // namespace tandem::bench
