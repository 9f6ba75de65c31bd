// HTTP/1.1 on a TCP port: reads requests within limits, hands them to a handler, writes replies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "server/http_types.h"

namespace tandem::server {

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;   // 0: the system chooses
  std::string root_path;  // a folder that a proxy leaves in front of every path; empty: none
  int num_threads = 2;    // for sockets; as many again for requests
  size_t max_connections = 1024;
  size_t max_body_bytes = size_t{64} << 20;
  size_t max_total_body_bytes = size_t{1} << 30;  // of all requests that are being read or answered
  size_t max_header_bytes = 8192;
  size_t max_header_fields = 256;
  int keep_alive_seconds = 5;  // idle between two requests
  int header_seconds = 10;     // from the first byte of a request to the end of its headers
  int body_seconds = 120;
  int write_seconds = 30;  // a client that takes nothing for so long is cut off
};

class HttpServer {
 public:
  // Binds and listens; replies are given from here on. The handler outlives the server.
  static base::Result<std::unique_ptr<HttpServer>> open(HttpHandler& handler,
                                                        const HttpServerOptions& options);
  // Closes every connection; replies under way are cancelled.
  ~HttpServer();

  uint16_t port() const;
  // Requests that are read but not answered yet.
  int64_t num_busy() const;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::server
