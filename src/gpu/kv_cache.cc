#include "gpu/kv_cache.h"

#include <utility>

namespace tandem::gpu {

KvCache::KvCache(const io::TextConfig& target, const model::KvStoreConfig& config,
                 const model::KvScaleLists& scales)
    : config_(config) {
  const bool is_fp8 = config.dtype == core::DType::kF8E4M3;
  const auto element_bytes = static_cast<int64_t>(core::dtype_bytes(config.dtype));
  for (size_t i = 0; i < target.layers.size(); ++i) {
    const io::LayerConfig& layer = target.layers[i];
    const bool ring = layer.type == io::LayerType::kSliding;
    const int64_t blocks = ring ? config.num_ring_blocks : config.num_page_blocks;
    const int64_t block_bytes =
        config.block_size * layer.num_key_value_heads * layer.head_dim * element_bytes;
    Layer made{.k = ops::cuda::DeviceBuffer(static_cast<size_t>(blocks * block_bytes)),
               .v = ops::cuda::DeviceBuffer(static_cast<size_t>(blocks * block_bytes)),
               .view = {},
               .ring_block_bytes = ring ? static_cast<size_t>(block_bytes) : 0};
    made.view = {.k = made.k.data(), .v = made.v.data(), .is_fp8 = is_fp8};
    if (is_fp8) {
      made.view.k_scale = scales.k.at(i);
      made.view.v_scale = scales.v.at(i);
    }
    layers_.push_back(std::move(made));
  }
  fill(0xff);  // NaN everywhere: whoever reads what was never written is found out
}

void KvCache::fill(int byte) const {
  for (const Layer& layer : layers_)
    for (const auto* buffer : {&layer.k, &layer.v})
      TANDEM_CUDA_CHECK(cudaMemset(buffer->data(), byte, buffer->size_bytes()));
}

void KvCache::copy_ring_blocks(const ops::cuda::Stream& stream,
                               std::span<const model::RingBlockCopy> copies) const {
  for (const Layer& layer : layers_) {
    if (layer.ring_block_bytes == 0) continue;
    for (const model::RingBlockCopy& copy : copies)
      for (const auto* buffer : {&layer.k, &layer.v}) {
        auto* const data = static_cast<uint8_t*>(buffer->data());
        TANDEM_CUDA_CHECK(
            cudaMemcpyAsync(data + static_cast<size_t>(copy.to) * layer.ring_block_bytes,
                            data + static_cast<size_t>(copy.from) * layer.ring_block_bytes,
                            layer.ring_block_bytes, cudaMemcpyDeviceToDevice, stream.handle));
      }
  }
}

}  // namespace tandem::gpu
