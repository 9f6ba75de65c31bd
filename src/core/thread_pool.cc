#include "core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/check.h"

namespace tandem::core {
namespace {

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

// Spinning this long covers the gap between two ops of a layer; then a worker sleeps.
constexpr int kSpins = 4000;

// Where the parts of a job begin, and its end: half of what is left in one part for each thread,
// then half of that, down to single grains. A thread that was slow, or put aside by the system,
// holds up the others by little, and few parts are begun. Depends on the sizes alone.
void cut_into_parts(int64_t count, int64_t grain, int64_t threads, std::vector<int64_t>& begins) {
  begins.clear();
  int64_t next = 0;
  while (next < count) {
    // Whole grains per part, so that a kernel's register tiles do not straddle parts.
    const int64_t grains = (count - next + grain - 1) / grain;
    const int64_t length = std::max<int64_t>(1, grains / (2 * threads)) * grain;
    for (int64_t i = 0; i < threads && next < count; ++i, next += length) begins.push_back(next);
  }
  begins.push_back(count);
}

// What can be claimed of the current job, in one word: its number, how many parts it has, and the
// next unclaimed part. A claim is one compare-and-swap, so a late thread cannot touch a newer job.
constexpr int64_t kMaxParts = 0xffff;
struct Ticket {
  uint64_t word = 0;
  uint64_t job() const { return word >> 32; }
  int64_t num_parts() const { return static_cast<int64_t>((word >> 16) & 0xffffU); }
  int64_t next_part() const { return static_cast<int64_t>(word & 0xffffU); }
};

}  // namespace

// The caller claims parts as the workers do. So nobody waits for a thread that has not woken up: on
// a busy machine the caller simply does the work itself.
struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> ticket{0};
  std::atomic<int64_t> parts_done{0};
  // The current job: written before its ticket is published, when no part of the previous one is
  // left or running; read only by whoever holds a part.
  const std::function<void(int64_t, int64_t)>* body = nullptr;
  std::vector<int64_t> begins;  // of its parts, and the end

  // Runs parts of job `job` until none is left to claim.
  void help(uint64_t job) {
    Ticket seen{ticket.load()};
    while (seen.job() == job && seen.next_part() < seen.num_parts()) {
      if (!ticket.compare_exchange_weak(seen.word, seen.word + 1)) continue;
      const auto part = static_cast<size_t>(seen.next_part());
      (*body)(begins[part], begins[part + 1]);
      parts_done.fetch_add(1);
      seen.word = ticket.load();
    }
  }

  void worker() {
    uint64_t last = 0;  // the job this worker has seen
    const auto is_new = [&] { return Ticket{ticket.load()}.job() != last; };
    while (true) {
      for (int spins = 0; !is_new() && spins < kSpins; ++spins) __builtin_ia32_pause();
      if (!is_new()) {
        std::unique_lock lock(mutex);
        sleepers.fetch_add(1);
        wake.wait(lock, is_new);
        sleepers.fetch_sub(1);
      }
      if (stop.load()) return;
      last = Ticket{ticket.load()}.job();
      help(last);
    }
  }

  // Publishes the next job; workers see everything written before. Returns its number.
  uint64_t publish(int64_t num_parts) {
    const uint64_t job = (Ticket{ticket.load()}.job() + 1) & 0xffffffffU;
    ticket.store((job << 32) | (static_cast<uint64_t>(num_parts) << 16));
    if (sleepers.load() > 0) {
      // Passing through the mutex: a worker between its check and its sleep is woken as well.
      {
        std::lock_guard lock(mutex);
      }
      wake.notify_all();
    }
    return job;
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  TANDEM_CHECK_GE(num_threads, 0);
  const int total = num_threads == 0 ? usable_cores() : num_threads;
  for (int i = 1; i < total; ++i)
    state_->workers.emplace_back([state = state_.get()] { state->worker(); });
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true);
  state_->publish(0);
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::num_threads() const {
  return static_cast<int>(state_->workers.size()) + 1;
}

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  const int64_t threads = num_threads();
  if (threads == 1 || count <= grain) {
    body(0, count);
    return;
  }
  State& state = *state_;
  state.body = &body;
  cut_into_parts(count, grain, threads, state.begins);
  const auto parts = static_cast<int64_t>(state.begins.size()) - 1;
  TANDEM_CHECK_LE(parts, kMaxParts);
  state.parts_done.store(0);
  state.help(state.publish(parts));
  for (int spins = 0; state.parts_done.load() != parts; ++spins) {
    if (spins < kSpins)
      __builtin_ia32_pause();
    else
      std::this_thread::yield();
  }
}

}  // namespace tandem::core
