// The merges of a BPE model: (left id, right id) -> rank, and rank -> merged id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem::text {

class MergeTable {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  void reserve(size_t num_merges);
  // Ranks count up from 0 in the order of the calls. A pair given twice keeps its last rank. A
  // merged id below 0 takes up a rank and is never found.
  void append(int32_t left, int32_t right, int32_t merged);

  // kNoRank if the two do not merge.
  uint32_t rank(int32_t left, int32_t right) const;
  int32_t merged(uint32_t rank) const { return merged_[rank]; }
  size_t size() const { return merged_.size(); }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  size_t find_slot(uint64_t key) const;
  void grow();

  std::vector<uint64_t> keys_;   // open addressing, a power of two, at most half full
  std::vector<uint32_t> ranks_;  // [keys_.size()]
  std::vector<int32_t> merged_;  // [size()]
  size_t num_keys_ = 0;
};

}  // namespace tandem::text
