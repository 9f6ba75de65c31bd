// The bytes of the KV cache. Which block belongs to whom is the engine's business.
#pragma once

#include <span>
#include <vector>

#include "core/buffer.h"
#include "io/model_config.h"
#include "model/forward_batch.h"
#include "ops/attention.h"

namespace tandem::model {

struct KvStoreConfig {
  int64_t block_size = 32;      // positions per block, both pools
  int64_t num_ring_blocks = 0;  // sliding layers
  int64_t num_page_blocks = 0;  // full layers
  int64_t ring_len = 0;         // positions a sequence's ring holds, a multiple of block_size
  core::DType dtype = core::DType::kBF16;
};

// The smallest ring that keeps every visible key while `num_draft_tokens` rows may be rejected:
// window + K (speculation.md 5.4), and some more so that prefill proceeds in larger slices.
int64_t ring_len_for(int64_t sliding_window, int64_t num_draft_tokens, int64_t block_size);

// Bytes of one block in each pool, all layers together, K and V.
struct KvBlockBytes {
  int64_t ring_block_bytes = 0;
  int64_t page_block_bytes = 0;
};
KvBlockBytes kv_block_bytes(const io::TextConfig& target, int64_t block_size, core::DType dtype);

class KvStore {
 public:
  // k_scales, v_scales: one per layer for FP8 stores, empty otherwise.
  KvStore(const io::TextConfig& target, const KvStoreConfig& config,
          std::vector<float> k_scales = {}, std::vector<float> v_scales = {});

  // K and V of a target layer: [num_blocks * block_size, num_key_value_heads, head_dim].
  const ops::KvView& layer(int64_t layer) const { return views_[static_cast<size_t>(layer)]; }
  const KvStoreConfig& config() const { return config_; }
  int64_t size_bytes() const { return size_bytes_; }

  // In order; the blocks of one copy are not the same.
  void copy_ring_blocks(std::span<const RingBlockCopy> copies);

  // Fills every slot with NaN: tests show that nothing unwritten is ever read.
  void poison();

 private:
  KvStoreConfig config_;
  std::vector<core::Buffer> buffers_;  // k, v of each layer
  std::vector<ops::KvView> views_;
  std::vector<size_t> ring_buffers_;  // of buffers_: those of sliding layers
  int64_t size_bytes_ = 0;
};

}  // namespace tandem::model
