#include "server/page_handler.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "server/api_error.h"
#include "server/web_files.h"

namespace tandem::server {
namespace {

constexpr std::string_view kFolder = "/web/";
constexpr std::string_view kIndex = "index.html";

// Nothing from elsewhere, no inline code or style, and no way to make HTML out of text.
constexpr const char* kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

// Null for a path that is not the page's.
const WebFile* find_file(std::string_view path) {
  if (path != "/" && !path.starts_with(kFolder)) return nullptr;
  const std::string_view name = path == "/" ? kIndex : path.substr(kFolder.size());
  for (const WebFile& file : web_files())
    if (file.name == name) return &file;
  return nullptr;
}

const char* content_type(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, const char*>, 4> kTypes = {{
      {".html", "text/html; charset=utf-8"},
      {".css", "text/css; charset=utf-8"},
      {".js", "text/javascript; charset=utf-8"},
      {".svg", "image/svg+xml"},
  }};
  for (const auto& [suffix, type] : kTypes)
    if (name.ends_with(suffix)) return type;
  return "application/octet-stream";
}

Reply file_reply(const WebFile& file) {
  Reply reply;
  reply.head.content_type = content_type(file.name);
  reply.head.headers = {{"Content-Security-Policy", kContentSecurityPolicy},
                        {"X-Content-Type-Options", "nosniff"},
                        {"X-Frame-Options", "DENY"},
                        {"Referrer-Policy", "no-referrer"},
                        {"Cross-Origin-Opener-Policy", "same-origin"},
                        {"Cross-Origin-Resource-Policy", "same-origin"},
                        {"Cache-Control", "no-cache"}};
  reply.body = std::string(file.data);
  return reply;
}

// A browser says so when a page from elsewhere asks. Such a page cannot read replies, but what it
// asks for would take time and places. "same-site" is another port of the same host.
bool from_other_page(const HttpRequest& request) {
  const std::string_view site = request.header("sec-fetch-site");
  return request.method != "GET" && (site == "cross-site" || site == "same-site");
}

}  // namespace

Reply PageHandler::handle(const HttpRequest& request) {
  if (from_other_page(request))
    return error_reply({403,
                        "Sec-Fetch-Site: expected a request from the server's own page or from no "
                        "web page; put both behind one host and port"});
  const WebFile* file = find_file(request.path);
  if (file == nullptr) return api_.handle(request);
  if (request.method == "GET") return file_reply(*file);
  Reply reply = error_reply({405, fmt::format("{}: expected GET", request.path)});
  reply.head.headers.emplace_back("Allow", "GET");
  return reply;
}

void PageHandler::count(const HttpRequest& request, int status, double seconds) {
  if (find_file(request.path) == nullptr) return api_.count(request, status, seconds);
  // One name for all of its files: dashboards ask about the API.
  metrics_.add_http(request.method == "GET" ? "GET" : "other", "/", status, seconds);
}

}  // namespace tandem::server
