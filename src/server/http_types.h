// What the routes see of HTTP: plain values, no sockets.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::server {

struct HttpRequest {
  std::string method;
  std::string path;                                          // without the query
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string query = {};  // behind the ?, as it was sent

  // The first header of that name (lower case); empty without one.
  std::string_view header(std::string_view name) const;
};

struct ReplyHead {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// What there is to send now.
struct ReplyPart {
  std::optional<ReplyHead> head;  // once, in the first part that is not empty
  std::string data;
  bool done = false;  // nothing follows
};

// A reply that is made while it is sent. All calls but `wake` come from one thread at a time.
class ReplySource {
 public:
  virtual ~ReplySource() = default;
  // Begins the work. `wake` is called from any thread when poll() may have more.
  virtual void start(std::function<void()> wake) = 0;
  // Takes what is ready; never blocks. `done` with the head makes a reply with a length, else it
  // is sent in chunks.
  virtual ReplyPart poll() = 0;
  // The client is gone, or too slow: nothing is asked for any more.
  virtual void cancel() = 0;
};

struct Reply {
  ReplyHead head;
  std::string body;
  std::shared_ptr<ReplySource> source;  // when set, head and body come from it
  std::string field;                    // of a refusal: the field that is wrong, for the log
};

// Answers requests; called from several threads at once.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  virtual Reply handle(const HttpRequest& request) = 0;
  // Looks at a request whose body has not been read yet; a refusal ends the connection.
  virtual std::optional<Reply> refuse_head(const HttpRequest& request) = 0;
  // A request that HTTP itself refuses (413, 431, ...): the body of the reply.
  virtual Reply refuse(int status, const std::string& message) = 0;
  // After each reply, for metrics.
  virtual void count(const HttpRequest& request, int status, double seconds) = 0;
};

}  // namespace tandem::server
