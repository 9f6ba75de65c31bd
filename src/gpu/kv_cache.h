// The bytes of the KV cache on the device: what model/kv_store.h is on the host. Which block
// belongs to whom is the engine's business.
#pragma once

#include <span>
#include <vector>

#include "model/kv_format.h"
#include "model/kv_store.h"
#include "ops/cuda/device.h"
#include "ops/cuda/rows.h"

namespace tandem::gpu {

class KvCache {
 public:
  // [num_blocks][num_kv_heads][block_size][head_dim] per layer, ring or pages by its type; BF16 or
  // E4M3. scales: one per layer for E4M3, else empty.
  KvCache(const io::TextConfig& target, const model::KvStoreConfig& config,
          const model::KvScaleLists& scales);

  const ops::cuda::KvLayer& layer(int64_t index) const {
    return layers_[static_cast<size_t>(index)].view;
  }
  // In order, beside what the stream has to do; the blocks of one copy are not the same.
  void copy_ring_blocks(const ops::cuda::Stream& stream,
                        std::span<const model::RingBlockCopy> copies) const;
  // Zeros everywhere.
  void clear() const { fill(0); }
  const model::KvStoreConfig& config() const { return config_; }

 private:
  struct Layer {
    ops::cuda::DeviceBuffer k, v;
    ops::cuda::KvLayer view;
    size_t ring_block_bytes = 0;  // of k, and of v; 0 in pages
  };
  void fill(int byte) const;

  model::KvStoreConfig config_;
  std::vector<Layer> layers_;
};

}  // namespace tandem::gpu
