// The web page at /: files of src/server/web in front of the API.
#pragma once

#include <string_view>

#include "server/http_types.h"
#include "server/metrics.h"

namespace tandem::server {

// Answers for the page's paths itself and hands everything else to the API. The page asks for the
// API key and holds no secret, so it needs none.
class PageHandler : public HttpHandler {
 public:
  PageHandler(HttpHandler& api, Metrics& metrics) : api_(api), metrics_(metrics) {}

  Reply handle(const HttpRequest& request) override;
  std::optional<Reply> refuse_head(const HttpRequest& request) override {
    return api_.refuse_head(request);
  }
  Reply refuse(int status, const std::string& message) override {
    return api_.refuse(status, message);
  }
  void count(const HttpRequest& request, int status, double seconds) override;

 private:
  HttpHandler& api_;
  Metrics& metrics_;
};

}  // namespace tandem::server
