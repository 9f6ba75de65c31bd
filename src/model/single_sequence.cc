#include "model/single_sequence.h"

#include <algorithm>
#include <numeric>

namespace tandem::model {
namespace {

constexpr int64_t kBlockSize = 16;

KvStoreConfig make_config(const io::TextConfig& target, int64_t max_tokens,
                          int64_t num_draft_tokens, core::DType dtype) {
  KvStoreConfig config;
  config.block_size = kBlockSize;
  config.ring_len = ring_len_for(target.sliding_window, num_draft_tokens, kBlockSize);
  config.num_ring_blocks = config.ring_len / kBlockSize;
  config.num_page_blocks = (max_tokens + num_draft_tokens + kBlockSize) / kBlockSize;
  config.dtype = dtype;
  return config;
}

std::vector<int32_t> count_up(int64_t n) {
  std::vector<int32_t> blocks(static_cast<size_t>(n));
  std::iota(blocks.begin(), blocks.end(), 0);
  return blocks;
}

}  // namespace

SingleSequence::SingleSequence(const io::TextConfig& target, int64_t max_tokens,
                               int64_t num_draft_tokens, core::DType dtype,
                               std::vector<float> k_scales, std::vector<float> v_scales)
    : config_(make_config(target, max_tokens, num_draft_tokens, dtype)),
      blocks_(count_up(std::max(config_.num_ring_blocks, config_.num_page_blocks))),
      kv_(target, config_, std::move(k_scales), std::move(v_scales)) {}

ops::KvPlaces SingleSequence::ring() const {
  return {blocks_, config_.num_ring_blocks, config_.block_size, config_.ring_len};
}

ops::KvPlaces SingleSequence::pages() const {
  return {blocks_, config_.num_page_blocks, config_.block_size, 0};
}

}  // namespace tandem::model
