// The one thread that owns the engine: requests in, events out, nothing waits for a socket.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "engine/engine.h"

namespace tandem::server {

// What happens to one request; called on the engine thread, so it only hands the event on. An
// error is the only and last call: the engine refused the request.
using EventSink = std::function<void(base::Result<engine::TokenEvent>)>;

struct EngineThreadOptions {
  int64_t max_requests = 0;    // running and queued together; more are refused before any work
  double stuck_seconds = 300;  // a step that takes longer makes healthy() false
  // After each step, on the engine thread: tokens of prompts that began in it, and output.
  std::function<void(int64_t num_tokens)> on_step = {};
  // Takes work that every step does while it waits for a device: events of the step before are
  // handed out there, and the device need not wait for that. None: they go out at once.
  std::function<void(std::function<void()> work)> set_meanwhile = {};
};

class EngineThread;

// Places among the running and queued requests, taken before any work is done for them.
class Admission {
 public:
  Admission() = default;
  Admission(Admission&& other) noexcept;
  Admission& operator=(Admission&& other) noexcept;
  ~Admission();

 private:
  friend class EngineThread;
  Admission(std::atomic<int64_t>* counter, int64_t count) : counter_(counter), count_(count) {}

  std::atomic<int64_t>* counter_ = nullptr;
  int64_t count_ = 0;
};

class EngineThread {
 public:
  // The engine is touched by this thread alone until the destructor returns.
  EngineThread(engine::Engine& engine, EngineThreadOptions options);
  // Cancels what is not finished; every sink gets its last event.
  ~EngineThread();

  // Nothing when there is no room for `count` more.
  std::optional<Admission> admit(int64_t count);
  // `request.id` is set here and returned. The admission is given back with the last event.
  uint64_t submit(engine::EngineRequest request, std::shared_ptr<Admission> admission,
                  EventSink sink);
  // Takes effect before the next step. The sink gets one last event.
  void cancel(uint64_t id);
  void cancel_all();
  // Cancels what is not finished and ends the thread; false while a step is still under way after
  // so many seconds.
  bool stop(double seconds);

  bool idle() const { return num_admitted_.load() == 0; }
  int64_t num_admitted() const { return num_admitted_.load(); }
  // False while a step, or handing out what it gave, takes longer than stuck_seconds, and for ever
  // once a step has failed.
  bool healthy() const;
  // The device, or memory, has failed in a step: every request has been told, and nothing runs any
  // more.
  bool failed() const { return failed_.load(); }
  engine::EngineStats stats() const;
  const EngineThreadOptions& options() const { return options_; }

 private:
  struct Submission {
    engine::EngineRequest request;
    std::shared_ptr<Admission> admission;
    EventSink sink;
  };
  struct Active {
    std::shared_ptr<Admission> admission;
    EventSink sink;
  };
  struct Inbox {
    std::vector<Submission> submissions;
    std::vector<uint64_t> cancels;
    bool cancel_all = false;
    bool stop = false;
  };

  void run();
  void step();
  void fail(const std::exception& error);
  void take(Inbox inbox);
  void cancel_now(uint64_t id);
  void hand_out();
  void deliver(engine::TokenEvent event);
  void publish_stats();

  engine::Engine& engine_;
  EngineThreadOptions options_;
  std::atomic<int64_t> num_admitted_{0};
  std::atomic<uint64_t> next_id_{1};
  std::atomic<int64_t> busy_since_ns_{0};  // 0: waits for work
  std::atomic<bool> failed_{false};

  mutable std::mutex mutex_;  // never held across a step
  std::condition_variable wake_;
  std::condition_variable ended_;
  bool has_ended_ = false;
  Inbox inbox_;
  engine::EngineStats stats_;

  // The engine thread's alone.
  std::unordered_map<uint64_t, Active> active_;
  std::vector<engine::TokenEvent> events_;  // of the last step, still to be handed out
  std::thread thread_;
};

}  // namespace tandem::server
