#include "engine/block_pool.h"

#include <fmt/format.h>

#include "base/check.h"

namespace tandem::engine {

BlockPool::BlockPool(int64_t num_blocks, int32_t first_block)
    : first_block_(first_block), held_(static_cast<size_t>(num_blocks), 0) {
  free_.reserve(held_.size());
  for (int64_t block = num_blocks - 1; block >= 0; --block)
    free_.push_back(first_block + static_cast<int32_t>(block));
}

void BlockPool::allocate(int64_t count, std::vector<int32_t>& blocks) {
  TANDEM_CHECK_GE(count, 0);
  TANDEM_CHECK_LE(count, num_free());
  for (int64_t i = 0; i < count; ++i) {
    const int32_t block = free_.back();
    free_.pop_back();
    held_[static_cast<size_t>(block - first_block_)] = 1;
    blocks.push_back(block);
  }
}

void BlockPool::release(std::vector<int32_t>& blocks) {
  for (const int32_t block : blocks) release(block);
  blocks.clear();
}

void BlockPool::release(int32_t block) {
  uint8_t& held = held_[static_cast<size_t>(block - first_block_)];
  TANDEM_CHECK_MSG(held == 1, "block {} released twice", block);
  held = 0;
  free_.push_back(block);
}

std::string BlockPool::find_fault(const std::vector<const std::vector<int32_t>*>& holders) const {
  std::vector<int> owners(held_.size(), 0);
  for (const auto* blocks : holders)
    for (const int32_t block : *blocks) {
      const int64_t index = static_cast<int64_t>(block) - first_block_;
      if (index < 0 || index >= num_blocks()) return fmt::format("block {} does not exist", block);
      if (++owners[static_cast<size_t>(index)] > 1)
        return fmt::format("block {} has two holders", block);
    }
  std::vector<int> listed(held_.size(), 0);
  for (const int32_t block : free_) ++listed[static_cast<size_t>(block - first_block_)];
  for (size_t block = 0; block < held_.size(); ++block) {
    if (owners[block] != held_[block])
      return fmt::format("block {}: marked {}, holders {}", block, held_[block], owners[block]);
    if (listed[block] != 1 - held_[block])
      return fmt::format("block {}: marked {}, on the free list {} times", block, held_[block],
                         listed[block]);
  }
  return {};
}

}  // namespace tandem::engine
