#include "server/engine_thread.h"

#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace tandem::server {
namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// What clients hear: nothing of what the machine said.
tl::unexpected<base::Error> failure() {
  return base::make_error(base::ErrorCode::kInternal, "the server's device failed");
}

}  // namespace

Admission::Admission(Admission&& other) noexcept
    : counter_(std::exchange(other.counter_, nullptr)), count_(std::exchange(other.count_, 0)) {}

Admission& Admission::operator=(Admission&& other) noexcept {
  std::swap(counter_, other.counter_);
  std::swap(count_, other.count_);
  return *this;
}

Admission::~Admission() {
  if (counter_ != nullptr) counter_->fetch_sub(count_);
}

EngineThread::EngineThread(engine::Engine& engine, EngineThreadOptions options)
    : engine_(engine), options_(std::move(options)), stats_(engine.stats()) {
  if (options_.set_meanwhile) options_.set_meanwhile([this] { hand_out(); });
  thread_ = std::thread([this] { run(); });
}

EngineThread::~EngineThread() {
  stop(0);
  thread_.join();
  if (options_.set_meanwhile) options_.set_meanwhile({});
}

bool EngineThread::stop(double seconds) {
  std::unique_lock lock(mutex_);
  inbox_.cancel_all = true;
  inbox_.stop = true;
  wake_.notify_one();
  return ended_.wait_for(lock, std::chrono::duration<double>(seconds),
                         [this] { return has_ended_; });
}

std::optional<Admission> EngineThread::admit(int64_t count) {
  int64_t current = num_admitted_.load();
  do {
    if (count > options_.max_requests - current) return std::nullopt;
  } while (!num_admitted_.compare_exchange_weak(current, current + count));
  return Admission(&num_admitted_, count);
}

uint64_t EngineThread::submit(engine::EngineRequest request, std::shared_ptr<Admission> admission,
                              EventSink sink) {
  const uint64_t id = next_id_.fetch_add(1);
  request.id = id;
  {
    const std::lock_guard lock(mutex_);
    inbox_.submissions.push_back({std::move(request), std::move(admission), std::move(sink)});
  }
  wake_.notify_one();
  return id;
}

void EngineThread::cancel(uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.cancels.push_back(id);
  }
  wake_.notify_one();
}

void EngineThread::cancel_all() {
  {
    const std::lock_guard lock(mutex_);
    inbox_.cancel_all = true;
  }
  wake_.notify_one();
}

bool EngineThread::healthy() const {
  const int64_t began = busy_since_ns_.load();
  if (failed_.load()) return false;
  return began == 0 || static_cast<double>(now_ns() - began) * 1e-9 <= options_.stuck_seconds;
}

engine::EngineStats EngineThread::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void EngineThread::run() {
  while (true) {
    Inbox inbox;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] {
        return (engine_.has_work() && !failed_.load()) || !inbox_.submissions.empty() ||
               !inbox_.cancels.empty() || inbox_.cancel_all || inbox_.stop;
      });
      inbox = std::exchange(inbox_, {});
    }
    // Whatever keeps this thread from coming back here keeps every client waiting.
    busy_since_ns_.store(now_ns());
    const bool stop = inbox.stop;
    take(std::move(inbox));
    if (stop) break;
    step();
    busy_since_ns_.store(0);
  }
  TANDEM_CHECK(active_.empty());
  const std::lock_guard lock(mutex_);
  has_ended_ = true;
  ended_.notify_all();
}

void EngineThread::step() {
  if (failed_.load()) return;
  std::vector<engine::TokenEvent> events;
  try {
    events = engine_.step();
  } catch (const std::exception& error) {
    return fail(error);
  }
  hand_out();  // if the step did not
  publish_stats();
  events_ = std::move(events);
  // Without another step right behind this one, nobody else would.
  if (!options_.set_meanwhile || !engine_.has_work()) hand_out();
}

void EngineThread::hand_out() {
  for (engine::TokenEvent& event : std::exchange(events_, {})) deliver(std::move(event));
}

// What the engine holds is in the middle of a step for ever: it is not touched again.
void EngineThread::fail(const std::exception& error) {
  base::log_error("a step of the engine failed, {} requests with it: {}", active_.size(),
                  error.what());
  failed_.store(true);
  hand_out();
  for (auto& [id, active] : active_) {
    active.admission.reset();
    active.sink(failure());
  }
  active_.clear();
}

void EngineThread::take(Inbox inbox) {
  for (Submission& submission : inbox.submissions) {
    const uint64_t id = submission.request.id;
    if (failed_.load()) {
      submission.admission.reset();
      submission.sink(failure());
      continue;
    }
    const base::Status status = engine_.add_request(std::move(submission.request));
    if (status) {
      active_.emplace(id, Active{std::move(submission.admission), std::move(submission.sink)});
      continue;
    }
    submission.admission.reset();
    submission.sink(tl::unexpected<base::Error>(status.error()));
  }
  for (const uint64_t id : inbox.cancels) cancel_now(id);
  if (!inbox.cancel_all) return;
  while (!active_.empty()) cancel_now(active_.begin()->first);
}

// Nothing for a request that has ended by itself.
void EngineThread::cancel_now(uint64_t id) {
  if (failed_.load()) return;
  hand_out();  // what came before the last event
  auto event = engine_.cancel(id);
  if (event) deliver(std::move(*event));
}

void EngineThread::deliver(engine::TokenEvent event) {
  const auto found = active_.find(event.id);
  TANDEM_CHECK(found != active_.end());
  if (!event.finish) return found->second.sink(std::move(event));
  // The place is free before the client hears of the end: it may ask again at once.
  Active active = std::move(found->second);
  active_.erase(found);
  active.admission.reset();
  active.sink(std::move(event));
}

void EngineThread::publish_stats() {
  const engine::EngineStats stats = engine_.stats();
  const engine::EngineStats before = stats_;  // this thread alone writes it
  {
    const std::lock_guard lock(mutex_);
    stats_ = stats;
  }
  if (stats.num_steps == before.num_steps || !options_.on_step) return;
  options_.on_step(stats.num_prompt_tokens - before.num_prompt_tokens + stats.num_output_tokens -
                   before.num_output_tokens);
}

}  // namespace tandem::server
