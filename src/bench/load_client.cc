#include "bench/load_client.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>
#include <unordered_map>

#include "base/check.h"
#include "base/clock.h"
#include "base/file_limit.h"
#include "bench/http_reader.h"
#include "bench/stream_reader.h"

namespace tandem::bench {
namespace {

constexpr int kMaxWaitMs = 100;  // how late a stop or a timeout is noticed
constexpr size_t kBufferBytes = size_t{64} << 10;

// One request on its own connection.
class Exchange {
 public:
  Exchange(const Endpoint& endpoint, const PlannedRequest& plan, double now)
      : abort_after_(plan.abort_after),
        bytes_(request_bytes(endpoint, "POST", plan.path, plan.body)),
        http_([this](std::string_view part) { take_body(part); }),
        events_([this](std::string_view data) { take_event(data); }) {
    outcome_.prompt = plan.prompt;
    outcome_.start = now;
    fd_ = begin_connection(endpoint);
    if (fd_ < 0) fail(now, std::strerror(errno));
  }
  ~Exchange() {
    if (fd_ >= 0) ::close(fd_);
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  int fd() const { return fd_; }
  bool done() const { return done_; }
  bool sending() const { return sent_ < bytes_.size(); }
  const RequestOutcome& outcome() const { return outcome_; }
  RequestOutcome take_outcome() { return std::move(outcome_); }

  void on_writable(double now) {
    while (sending() && !done_) {
      const ssize_t count = ::send(fd_, bytes_.data() + sent_, bytes_.size() - sent_, MSG_NOSIGNAL);
      if (count < 0) return count_error(now);
      sent_ += static_cast<size_t>(count);
    }
  }

  void on_readable(double now, std::array<char, kBufferBytes>& buffer) {
    now_ = now;
    while (!done_) {
      const ssize_t count = ::recv(fd_, buffer.data(), buffer.size(), 0);
      if (count < 0) return count_error(now);
      const base::Status status =
          count == 0 ? http_.finish() : http_.feed({buffer.data(), static_cast<size_t>(count)});
      outcome_.status = http_.status();
      if (!status) return fail(now, status.error().message);
      if (http_.done()) end(now);
    }
  }

  void fail(double now, const std::string& error) {
    if (done_) return;
    done_ = true;
    outcome_.latency = now - outcome_.start;
    if (!outcome_.aborted) outcome_.error = error;
  }

 private:
  void count_error(double now) {
    if (errno != EAGAIN && errno != EINTR) fail(now, std::strerror(errno));
  }

  void take_body(std::string_view part) {
    if (http_.status() == 200)
      events_.feed(part);
    else
      body_ += part;
  }

  void take_event(std::string_view data) {
    if (done_) return;
    StreamEvent event = read_event(data);
    if (!event.error.empty()) return fail(now_, event.error);
    saw_done_ = saw_done_ || event.done;
    outcome_.num_prompt_tokens = event.num_prompt_tokens.value_or(outcome_.num_prompt_tokens);
    outcome_.num_output_tokens = event.num_output_tokens.value_or(outcome_.num_output_tokens);
    saw_usage_ = saw_usage_ || event.num_output_tokens.has_value();
    if (!event.has_content) return;
    if (outcome_.part_times.empty()) outcome_.ttft = now_ - outcome_.start;
    outcome_.part_times.push_back(now_);
    outcome_.text += event.text;
    outcome_.token_ids.insert(outcome_.token_ids.end(), event.token_ids.begin(),
                              event.token_ids.end());
    const auto parts = static_cast<int64_t>(outcome_.part_times.size());
    if (abort_after_ && parts >= *abort_after_) {
      outcome_.aborted = true;
      fail(now_, "");
    }
  }

  void end(double now) {
    if (done_) return;
    if (outcome_.status != 200) return fail(now, error_message(body_));
    if (!saw_done_) return fail(now, "the stream ended without [DONE]");
    done_ = true;
    outcome_.success = true;
    // Behind the last content come usage and [DONE]; they are no part of the answer's time.
    const double last = outcome_.part_times.empty() ? now : outcome_.part_times.back();
    outcome_.latency = last - outcome_.start;
    if (saw_usage_) return;
    const size_t ids = outcome_.token_ids.size();
    outcome_.num_output_tokens = static_cast<int64_t>(ids > 0 ? ids : outcome_.part_times.size());
  }

  std::optional<int64_t> abort_after_;
  std::string bytes_;
  size_t sent_ = 0;
  int fd_ = -1;
  bool done_ = false;
  bool saw_done_ = false;
  bool saw_usage_ = false;
  double now_ = 0;
  HttpReader http_;
  EventReader events_;
  std::string body_;  // of an error
  RequestOutcome outcome_;
};

class LoadLoop {
 public:
  LoadLoop(const Endpoint& endpoint, const LoadClientOptions& options,
           const std::function<std::optional<PlannedRequest>()>& next,
           const std::function<bool()>& stopped)
      : endpoint_(endpoint), options_(options), next_(next), stopped_(stopped) {
    poll_ = ::epoll_create1(EPOLL_CLOEXEC);
    TANDEM_CHECK_GE(poll_, 0);
  }
  ~LoadLoop() { ::close(poll_); }

  std::vector<RequestOutcome> run() {
    pending_ = next_();
    while ((pending_ || !active_.empty()) && !stopped_()) {
      start_due();
      wait();
      if (clock_.seconds() - last_sweep_ > 1) sweep();
    }
    for (auto& [fd, exchange] : active_) {
      exchange->fail(clock_.seconds(), "stopped");
      outcomes_.push_back(exchange->take_outcome());
    }
    return std::move(outcomes_);
  }

 private:
  bool has_room() const {
    return options_.max_concurrency == 0 ||
           static_cast<int64_t>(active_.size()) < options_.max_concurrency;
  }

  void start_due() {
    if (options_.send_seconds > 0 && clock_.seconds() >= options_.send_seconds) pending_.reset();
    while (pending_ && has_room() && pending_->at_seconds <= clock_.seconds()) {
      auto exchange = std::make_unique<Exchange>(endpoint_, *pending_, clock_.seconds());
      pending_ = next_();
      if (exchange->done()) {
        outcomes_.push_back(exchange->take_outcome());
        continue;
      }
      epoll_event event{};
      event.events = EPOLLIN | EPOLLOUT;
      event.data.fd = exchange->fd();
      ::epoll_ctl(poll_, EPOLL_CTL_ADD, exchange->fd(), &event);
      active_.emplace(exchange->fd(), std::move(exchange));
    }
  }

  int wait_ms() const {
    if (!pending_ || !has_room()) return kMaxWaitMs;
    const double seconds = pending_->at_seconds - clock_.seconds();
    return std::clamp(static_cast<int>(seconds * 1000), 0, kMaxWaitMs);
  }

  void wait() {
    std::array<epoll_event, 64> ready{};
    const int count = ::epoll_wait(poll_, ready.data(), static_cast<int>(ready.size()), wait_ms());
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = ready[static_cast<size_t>(i)];
      const auto found = active_.find(event.data.fd);
      if (found == active_.end()) continue;
      Exchange& exchange = *found->second;
      if (exchange.sending() && (event.events & EPOLLOUT) != 0) {
        exchange.on_writable(clock_.seconds());
        if (!exchange.sending()) only_read(exchange.fd());
      }
      if ((event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        exchange.on_readable(clock_.seconds(), buffer_);
      if (exchange.done()) remove(found);
    }
  }

  void only_read(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(poll_, EPOLL_CTL_MOD, fd, &event);
  }

  using Active = std::unordered_map<int, std::unique_ptr<Exchange>>;
  Active::iterator remove(Active::iterator entry) {
    ::epoll_ctl(poll_, EPOLL_CTL_DEL, entry->first, nullptr);
    outcomes_.push_back(entry->second->take_outcome());
    return active_.erase(entry);
  }

  // Requests that take too long.
  void sweep() {
    last_sweep_ = clock_.seconds();
    for (auto entry = active_.begin(); entry != active_.end();) {
      Exchange& exchange = *entry->second;
      if (last_sweep_ - exchange.outcome().start < options_.timeout_seconds) {
        ++entry;
        continue;
      }
      exchange.fail(last_sweep_, "no time left");
      entry = remove(entry);
    }
  }

  const Endpoint& endpoint_;
  const LoadClientOptions& options_;
  const std::function<std::optional<PlannedRequest>()>& next_;
  const std::function<bool()>& stopped_;
  int poll_ = -1;
  base::Stopwatch clock_;
  double last_sweep_ = 0;
  std::optional<PlannedRequest> pending_;
  Active active_;  // by file descriptor
  std::vector<RequestOutcome> outcomes_;
  std::array<char, kBufferBytes> buffer_{};
};

}  // namespace

std::vector<RequestOutcome> run_load(const Endpoint& endpoint, const LoadClientOptions& options,
                                     const std::function<std::optional<PlannedRequest>()>& next,
                                     const std::function<bool()>& stopped) {
  // Every request under way is a file.
  base::raise_file_limit(std::numeric_limits<uint64_t>::max());
  const auto loop = std::make_unique<LoadLoop>(endpoint, options, next, stopped);
  return loop->run();
}

}  // namespace tandem::bench
