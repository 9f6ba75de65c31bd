#include "server/response_store.h"

#include <utility>

namespace tandem::server {
namespace {

constexpr size_t kEntryBytes = 512;  // of the lists around the texts, roughly

}  // namespace

bool ResponseStore::put(const std::string& id, StoredResponse response) {
  const size_t num_bytes =
      kEntryBytes + id.size() * 2 + response.reply.size() + response.items.size();
  if (num_bytes > max_bytes_) return false;
  const std::lock_guard lock(mutex_);
  if (const auto found = index_.find(id); found != index_.end()) remove(found->second);
  while (num_bytes_ + num_bytes > max_bytes_) remove(std::prev(entries_.end()));
  entries_.push_front({id, std::make_shared<const StoredResponse>(std::move(response)), num_bytes});
  index_[id] = entries_.begin();
  num_bytes_ += num_bytes;
  return true;
}

std::shared_ptr<const StoredResponse> ResponseStore::get(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = index_.find(id);
  if (found == index_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->response;
}

bool ResponseStore::erase(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = index_.find(id);
  if (found == index_.end()) return false;
  remove(found->second);
  return true;
}

size_t ResponseStore::num_bytes() const {
  const std::lock_guard lock(mutex_);
  return num_bytes_;
}

void ResponseStore::remove(std::list<Entry>::iterator entry) {
  num_bytes_ -= entry->num_bytes;
  index_.erase(entry->id);
  entries_.erase(entry);
}

}  // namespace tandem::server
