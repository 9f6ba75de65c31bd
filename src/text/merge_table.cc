#include "text/merge_table.h"

#include <algorithm>

namespace tandem::text {
namespace {

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

size_t hash_key(uint64_t key) {
  key = (key ^ key >> 31) * 0x9E3779B97F4A7C15u;
  return static_cast<size_t>(key ^ key >> 32);
}

}  // namespace

void MergeTable::reserve(size_t num_merges) {
  merged_.reserve(num_merges);
  while (keys_.size() < 2 * num_merges) grow();
}

size_t MergeTable::find_slot(uint64_t key) const {
  const size_t mask = keys_.size() - 1;
  size_t index = hash_key(key) & mask;
  while (keys_[index] != key && keys_[index] != kEmpty) index = (index + 1) & mask;
  return index;
}

void MergeTable::grow() {
  std::vector<uint64_t> old_keys(std::max<size_t>(64, 2 * keys_.size()), kEmpty);
  std::vector<uint32_t> old_ranks(old_keys.size());
  old_keys.swap(keys_);
  old_ranks.swap(ranks_);
  for (size_t i = 0; i < old_keys.size(); ++i) {
    if (old_keys[i] == kEmpty) continue;
    const size_t index = find_slot(old_keys[i]);
    keys_[index] = old_keys[i];
    ranks_[index] = old_ranks[i];
  }
}

void MergeTable::append(int32_t left, int32_t right, int32_t merged) {
  const auto rank = static_cast<uint32_t>(merged_.size());
  merged_.push_back(merged);
  if (merged < 0) return;
  if (keys_.size() < 2 * (num_keys_ + 1)) grow();
  const uint64_t key = pair_key(left, right);
  const size_t index = find_slot(key);
  if (keys_[index] == kEmpty) ++num_keys_;
  keys_[index] = key;
  ranks_[index] = rank;
}

uint32_t MergeTable::rank(int32_t left, int32_t right) const {
  if (keys_.empty()) return kNoRank;
  const uint64_t key = pair_key(left, right);
  const size_t index = find_slot(key);
  return keys_[index] == key ? ranks_[index] : kNoRank;
}

}  // namespace tandem::text
