// /openapi.json: the routes and their fields, for programs that read such descriptions.
#include "server/service.h"
#include "server/web_files.h"

namespace tandem::server {

Reply Service::openapi(const HttpRequest&) {
  constexpr std::string_view kVersion = "@VERSION@";
  Reply reply;
  reply.body = std::string(openapi_files().front().data);
  const size_t place = reply.body.find(kVersion);
  if (place != std::string::npos) reply.body.replace(place, kVersion.size(), parts_.model.version);
  return reply;
}

}  // namespace tandem::server
