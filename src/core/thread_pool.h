// A fixed set of threads that run one function over a fixed partition. The partition depends only
// on the sizes, and no kernel splits a sum over threads, so results do not depend on the count.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace tandem::core {

class ThreadPool {
 public:
  // num_threads >= 1, the caller's thread included; 0 asks for the number of usable cores.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  // Calls body(begin, end) on disjoint ranges that cover [0, count), each at least `grain` long
  // except the last. Blocks until all are done. Small counts run on the caller alone. Not
  // reentrant: body must not call parallel_for of the same pool. One caller at a time.
  void parallel_for(int64_t count, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::core
