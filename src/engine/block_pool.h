// Who holds which block of a KV pool: integers only, the bytes are model/kv_store's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::engine {

class BlockPool {
 public:
  // Blocks first_block .. first_block + num_blocks - 1 of a store.
  explicit BlockPool(int64_t num_blocks, int32_t first_block = 0);

  int64_t num_blocks() const { return static_cast<int64_t>(held_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_held() const { return num_blocks() - num_free(); }

  // Appends `count` blocks to `blocks`; the caller has seen that num_free() is enough.
  void allocate(int64_t count, std::vector<int32_t>& blocks);
  // Returns all of `blocks` and empties it. A block that is not held is a bug.
  void release(std::vector<int32_t>& blocks);
  void release(int32_t block);

  // Empty when the free list and the marks agree and `holders` hold exactly the held blocks, each
  // once; else what is wrong.
  std::string find_fault(const std::vector<const std::vector<int32_t>*>& holders) const;

 private:
  int32_t first_block_;
  std::vector<int32_t> free_;  // last in, first out: recently used blocks are warm in the caches
  std::vector<uint8_t> held_;  // [num_blocks] by block - first_block
};

// Blocks that `num_positions` positions need.
constexpr int64_t blocks_for(int64_t num_positions, int64_t block_size) {
  return (num_positions + block_size - 1) / block_size;
}

}  // namespace tandem::engine
