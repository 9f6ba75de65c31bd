#include "server/connection_table.h"

#include <chrono>
#include <utility>

namespace tandem::server {

ConnectionTable::Entry::Entry(ConnectionTable& table, std::function<void()> close)
    : table_(table), close_(std::move(close)) {
  const std::lock_guard lock(table_.mutex_);
  table_.entries_.insert(this);
}

ConnectionTable::Entry::~Entry() {
  const std::lock_guard lock(table_.mutex_);
  table_.entries_.erase(this);
}

ConnectionTable::Waiting::Waiting(Entry& entry) : entry_(entry) {
  entry_.waiting_since_ns_.store(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                     std::chrono::steady_clock::now().time_since_epoch())
                                     .count());
}

ConnectionTable::Waiting::~Waiting() {
  entry_.waiting_since_ns_.store(0);
}

bool ConnectionTable::evict() {
  const std::lock_guard lock(mutex_);
  Entry* slowest = nullptr;
  int64_t since = INT64_MAX;
  for (Entry* entry : entries_) {
    const int64_t began = entry->waiting_since_ns_.load();
    if (entry->evicted_ || began == 0 || began >= since) continue;
    slowest = entry;
    since = began;
  }
  if (slowest == nullptr) return false;
  slowest->evicted_ = true;
  slowest->close_();
  return true;
}

}  // namespace tandem::server
