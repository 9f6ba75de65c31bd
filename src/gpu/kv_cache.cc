#include "gpu/kv_cache.h"

namespace tandem::gpu {

KvCache::KvCache(const io::TextConfig& target, const model::KvStoreConfig& config)
    : config_(config) {
  for (const io::LayerConfig& layer : target.layers) {
    const bool ring = layer.type == io::LayerType::kSliding;
    const int64_t blocks = ring ? config.num_ring_blocks : config.num_page_blocks;
    const int64_t elements =
        blocks * config.block_size * layer.num_key_value_heads * layer.head_dim;
    Layer made{ops::cuda::DeviceBuffer(static_cast<size_t>(elements * 2)),
               ops::cuda::DeviceBuffer(static_cast<size_t>(elements * 2))};
    // NaN everywhere: whoever reads what was never written is found out.
    for (const auto* buffer : {&made.k, &made.v})
      TANDEM_CUDA_CHECK(cudaMemset(buffer->data(), 0xff, buffer->size_bytes()));
    layers_.push_back(std::move(made));
  }
}

}  // namespace tandem::gpu
