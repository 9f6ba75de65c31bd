// The routes: who may ask, what there is, and what each answers.
#pragma once

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

#include "server/generation.h"
#include "server/http_types.h"
#include "server/response_store.h"

namespace tandem::server {

struct ServiceOptions {
  std::vector<std::string> api_keys;  // empty: everybody may ask
  bool request_id_headers = false;    // X-Request-Id in every reply
  size_t response_store_bytes = 0;    // for /v1/responses; 0: none is kept
};

class Service : public HttpHandler {
 public:
  Service(const ServerParts& parts, ServiceOptions options);

  Reply handle(const HttpRequest& request) override;
  std::optional<Reply> refuse_head(const HttpRequest& request) override;
  Reply refuse(int status, const std::string& message) override;
  void count(const HttpRequest& request, int status, double seconds) override;

  // From now on new generating requests get 503 and /health says so.
  void begin_drain() { draining_.store(true); }

 private:
  struct Route;
  static const std::vector<Route>& routes();
  static const Route* find_route(std::string_view path);

  bool authorized(const HttpRequest& request) const;
  Reply dispatch(const HttpRequest& request);

  Reply health(const HttpRequest& request);
  Reply version(const HttpRequest& request);
  Reply models(const HttpRequest& request);
  Reply load(const HttpRequest& request);
  Reply openapi(const HttpRequest& request);
  Reply metrics(const HttpRequest& request);
  Reply tokenize(const HttpRequest& request);
  Reply detokenize(const HttpRequest& request);
  Reply invocations(const HttpRequest& request);
  Reply completions(const HttpRequest& request);
  Reply chat_completions(const HttpRequest& request);
  Reply messages(const HttpRequest& request);
  Reply count_tokens(const HttpRequest& request);
  Reply responses(const HttpRequest& request);
  Reply stored_response(const HttpRequest& request);

  // Refuses before any work: draining, or no place. Else the first place.
  ApiResult<Admission> enter();
  Reply generate(GenerationJob job, Admission first, const HttpRequest& request);
  Reply refused(const ApiError& error, const HttpRequest& request);
  ReplyNames names(const char* prefix, const std::string& id) const;
  ReplyExtras extras(const GenerationParams& params) const;

  ServerParts parts_;
  ServiceOptions options_;
  ResponseStore store_;
  std::atomic<bool> draining_{false};
};

// True when `given` is one of `keys`; takes as long whatever it is.
bool matches_key(std::string_view given, const std::vector<std::string>& keys);
// The client's X-Request-Id where it is harmless, else a random one.
std::string request_id(std::string_view header);

}  // namespace tandem::server
