// The bytes of the KV cache on the device: what model/kv_store.h is on the host. Which block
// belongs to whom is the engine's business.
#pragma once

#include <vector>

#include "model/kv_store.h"
#include "ops/cuda/device.h"
#include "ops/cuda/rows.h"

namespace tandem::gpu {

class KvCache {
 public:
  // BF16, [num_blocks][num_kv_heads][block_size][head_dim] per layer, ring or pages by its type.
  KvCache(const io::TextConfig& target, const model::KvStoreConfig& config);

  ops::cuda::KvLayer layer(int64_t index) const {
    const Layer& found = layers_[static_cast<size_t>(index)];
    return {found.k.as<uint16_t>(), found.v.as<uint16_t>()};
  }
  const model::KvStoreConfig& config() const { return config_; }

 private:
  struct Layer {
    ops::cuda::DeviceBuffer k, v;
  };
  model::KvStoreConfig config_;
  std::vector<Layer> layers_;
};

}  // namespace tandem::gpu
