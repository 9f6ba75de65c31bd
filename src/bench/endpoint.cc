#include "bench/endpoint.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "bench/http_reader.h"

namespace tandem::bench {
namespace {

// Closes when it goes out of scope.
struct Socket {
  int fd = -1;
  ~Socket() {
    if (fd >= 0) ::close(fd);
  }
};

base::Status no_answer(const Endpoint& endpoint, const std::string& why) {
  return base::make_error(base::ErrorCode::kNotFound,
                          fmt::format("{}:{}: expected a server, got no answer: {}", endpoint.host,
                                      endpoint.port, why));
}

// False when the time is over.
bool wait_for(int fd, short events, double seconds) {
  pollfd entry{fd, events, 0};
  return seconds > 0 && ::poll(&entry, 1, static_cast<int>(seconds * 1000) + 1) > 0;
}

}  // namespace

base::Result<Endpoint> parse_base_url(const std::string& url) {
  constexpr const char* kForm = "--base-url: expected http://HOST:PORT, got \"{}\"{}";
  const std::string shown = url.substr(0, 100);
  if (url.starts_with("https://"))
    return base::unsupported(kForm, shown, "; TLS is not available: measure behind the proxy");
  if (!url.starts_with("http://")) return base::invalid(kForm, shown, "");
  std::string place = url.substr(7);
  const size_t slash = std::min(place.find('/'), place.size());
  Endpoint endpoint;
  endpoint.folder = place.substr(slash);
  while (endpoint.folder.ends_with('/')) endpoint.folder.pop_back();
  // OpenAI's base URLs end in it, and paths here begin with it.
  if (endpoint.folder.ends_with("/v1")) endpoint.folder.resize(endpoint.folder.size() - 3);
  if (endpoint.folder.find_first_of(" ?#\t\r\n") != std::string::npos)
    return base::invalid(kForm, shown, "");
  place.resize(slash);
  const size_t bracket = place.find(']');
  const size_t colon = place.find(':', bracket == std::string::npos ? 0 : bracket);
  endpoint.host = place.substr(0, colon);
  if (endpoint.host.starts_with('[') && endpoint.host.ends_with(']'))
    endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
  endpoint.port = 80;
  if (colon != std::string::npos) {
    const char* const last = place.data() + place.size();
    const auto [end, error] = std::from_chars(place.data() + colon + 1, last, endpoint.port);
    if (error != std::errc() || end != last || endpoint.port < 1 || endpoint.port > 65535)
      return base::invalid(kForm, shown, "");
  }
  if (endpoint.host.empty()) return base::invalid(kForm, shown, "");
  return endpoint;
}

base::Status resolve(Endpoint& endpoint) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(endpoint.port);
  const int error = ::getaddrinfo(endpoint.host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) return no_answer(endpoint, ::gai_strerror(error));
  std::memcpy(&endpoint.address, found->ai_addr, found->ai_addrlen);
  endpoint.address_size = found->ai_addrlen;
  endpoint.other_addresses.clear();
  for (const addrinfo* one = found->ai_next; one != nullptr; one = one->ai_next) {
    auto& [address, size] = endpoint.other_addresses.emplace_back();
    std::memcpy(&address, one->ai_addr, one->ai_addrlen);
    size = one->ai_addrlen;
  }
  ::freeaddrinfo(found);
  return {};
}

std::string request_bytes(const Endpoint& endpoint, std::string_view method, std::string_view path,
                          std::string_view body) {
  const bool is_v6 = endpoint.host.find(':') != std::string::npos;
  std::string bytes = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}{}{}:{}\r\nConnection: close\r\n",
                                  method, endpoint.folder, path, is_v6 ? "[" : "", endpoint.host,
                                  is_v6 ? "]" : "", endpoint.port);
  for (const auto& [name, value] : endpoint.headers)
    bytes += fmt::format("{}: {}\r\n", name, value);
  if (!body.empty())
    bytes += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  bytes += "\r\n";
  bytes += body;
  return bytes;
}

int begin_connection(const Endpoint& endpoint) {
  const int fd =
      ::socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  const auto* const address = reinterpret_cast<const sockaddr*>(&endpoint.address);
  if (::connect(fd, address, endpoint.address_size) == 0 || errno == EINPROGRESS) return fd;
  const int error = errno;
  ::close(fd);
  errno = error;
  return -1;
}

base::Result<HttpAnswer> ask(const Endpoint& endpoint, std::string_view method,
                             std::string_view path, std::string_view body, double timeout_seconds) {
  const base::Stopwatch watch;
  const auto left = [&] { return timeout_seconds - watch.seconds(); };
  const auto failed = [&](const std::string& why) {
    return tl::unexpected<base::Error>(no_answer(endpoint, why).error());
  };
  const Socket socket{begin_connection(endpoint)};
  if (socket.fd < 0) return failed(std::strerror(errno));
  const std::string bytes = request_bytes(endpoint, method, path, body);
  HttpAnswer answer;
  HttpReader reader([&](std::string_view part) { answer.body += part; });
  size_t sent = 0;
  std::array<char, 16384> buffer{};
  while (!reader.done()) {
    const bool sending = sent < bytes.size();
    if (!wait_for(socket.fd, sending ? POLLOUT : POLLIN, left())) return failed("no time left");
    const ssize_t count =
        sending ? ::send(socket.fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL)
                : ::recv(socket.fd, buffer.data(), buffer.size(), 0);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return failed(std::strerror(errno));
    if (count < 0) continue;
    if (sending) {
      sent += static_cast<size_t>(count);
      continue;
    }
    const base::Status status =
        count == 0 ? reader.finish() : reader.feed({buffer.data(), static_cast<size_t>(count)});
    if (!status) return failed(status.error().message);
  }
  answer.status = reader.status();
  return answer;
}

base::Result<HttpAnswer> ask_any_address(Endpoint& endpoint, std::string_view path,
                                         double timeout_seconds) {
  auto answer = ask(endpoint, "GET", path, {}, timeout_seconds);
  for (auto& [address, size] : endpoint.other_addresses) {
    if (answer) break;
    std::swap(endpoint.address, address);
    std::swap(endpoint.address_size, size);
    answer = ask(endpoint, "GET", path, {}, timeout_seconds);
  }
  return answer;
}

}  // namespace tandem::bench
