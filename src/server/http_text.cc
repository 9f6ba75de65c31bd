#include "server/http_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/ascii.h"

namespace tandem::server {

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == name) return value;
  return {};
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

std::string percent_decoded(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const char* const digits = text.data() + i + 1;
    const bool escape = text[i] == '%' && text.size() - i > 2 &&
                        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2;
    result += escape ? static_cast<char>(byte) : text[i];
    if (escape) i += 2;
  }
  return result;
}

std::string origin_form(std::string_view target) {
  if (target.starts_with('/')) return std::string(target);
  const size_t scheme = target.find("://");
  if (scheme == std::string_view::npos) return {};
  const std::string name = base::lower_case(target.substr(0, scheme));
  if (name != "http" && name != "https") return {};
  target.remove_prefix(scheme + 3);
  const size_t end = std::min(target.find_first_of("/?"), target.size());
  if (end == 0) return {};  // no host
  std::string path(target.substr(end));
  if (!path.starts_with('/')) path.insert(0, 1, '/');
  return path;
}

std::string head_text(const ReplyHead& head, BodyFraming framing, size_t length, bool keep_alive) {
  std::string text = fmt::format("HTTP/1.1 {} {}\r\nServer: tandem\r\nContent-Type: {}\r\n",
                                 head.status, reason_phrase(head.status), head.content_type);
  for (const auto& [name, value] : head.headers) text += fmt::format("{}: {}\r\n", name, value);
  if (framing == BodyFraming::kLength) text += fmt::format("Content-Length: {}\r\n", length);
  if (framing == BodyFraming::kChunked) text += "Transfer-Encoding: chunked\r\n";
  text += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return text;
}

std::string chunk_text(std::string_view data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

}  // namespace tandem::server
