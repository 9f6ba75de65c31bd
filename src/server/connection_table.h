// Who is connected, and who keeps the server waiting: when all places are taken, the client that
// has been waited for longest makes room. So slow clients cannot shut out quick ones.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <unordered_set>

namespace tandem::server {

class ConnectionTable {
 public:
  // A connection's place in the table. `close` is called at most once, from any thread, and must
  // not wait.
  class Entry {
   public:
    Entry(ConnectionTable& table, std::function<void()> close);
    ~Entry();
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    friend class ConnectionTable;
    ConnectionTable& table_;
    std::function<void()> close_;
    std::atomic<int64_t> waiting_since_ns_{0};  // 0: the client is not waited for
    bool evicted_ = false;                      // under the table's mutex
  };

  // While it lives, the server waits for the client: for a request, or for it to read a reply.
  class Waiting {
   public:
    explicit Waiting(Entry& entry);
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    Entry& entry_;
  };

  // Closes the one that has been waited for longest; false when nobody is waited for.
  bool evict();

 private:
  std::mutex mutex_;
  std::unordered_set<Entry*> entries_;
};

}  // namespace tandem::server
