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
constexpr int kSpins = 20000;

}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> generation{0};
  std::atomic<int> pending{0};
  std::atomic<bool> stop{false};
  // The current job; written before `generation` is raised, read after it is seen.
  const std::function<void(int64_t, int64_t)>* body = nullptr;
  int64_t count = 0;
  int64_t chunk = 0;

  void run_part(int part) const {
    const int64_t begin = part * chunk;
    const int64_t end = std::min(count, begin + chunk);
    if (begin < end) (*body)(begin, end);
  }

  void worker(int part) {
    uint64_t seen = 0;
    while (true) {
      int spins = 0;
      while (generation.load(std::memory_order_acquire) == seen && spins < kSpins) {
        __builtin_ia32_pause();
        ++spins;
      }
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load()) return;
      run_part(part);
      pending.fetch_sub(1, std::memory_order_release);
    }
  }

  void announce() {
    {
      std::lock_guard lock(mutex);
      generation.fetch_add(1, std::memory_order_release);
    }
    wake.notify_all();
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  TANDEM_CHECK_GE(num_threads, 0);
  const int total = num_threads == 0 ? usable_cores() : num_threads;
  for (int part = 1; part < total; ++part)
    state_->workers.emplace_back([state = state_.get(), part] { state->worker(part); });
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true);
  state_->announce();
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
  state.count = count;
  // Whole grains per part, so that a kernel's register tiles do not straddle parts.
  const int64_t grains = (count + grain - 1) / grain;
  state.chunk = (grains + threads - 1) / threads * grain;
  state.pending.store(static_cast<int>(threads) - 1, std::memory_order_release);
  state.announce();
  state.run_part(0);
  int spins = 0;
  while (state.pending.load(std::memory_order_acquire) != 0) {
    if (++spins < kSpins)
      __builtin_ia32_pause();
    else
      std::this_thread::yield();
  }
}

}  // namespace tandem::core
