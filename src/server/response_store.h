// Answers of /v1/responses that a client may come back to. Bounded: the ones not used for longest
// go first. Safe to use from many threads.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace tandem::server {

struct StoredResponse {
  std::string reply;  // the JSON that was sent
  std::string items;  // what it answers and its own items: a JSON list the next one goes on from
};

class ResponseStore {
 public:
  explicit ResponseStore(size_t max_bytes) : max_bytes_(max_bytes) {}

  bool enabled() const { return max_bytes_ > 0; }
  // False, and nothing done, for a response that alone is larger than the store.
  bool put(const std::string& id, StoredResponse response);
  // Null when it is not there (any more).
  std::shared_ptr<const StoredResponse> get(const std::string& id);
  bool erase(const std::string& id);
  size_t num_bytes() const;

 private:
  struct Entry {
    std::string id;
    std::shared_ptr<const StoredResponse> response;
    size_t num_bytes = 0;
  };
  void remove(std::list<Entry>::iterator entry);

  size_t max_bytes_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // last used first
  std::unordered_map<std::string, std::list<Entry>::iterator> index_;
  size_t num_bytes_ = 0;
};

}  // namespace tandem::server
