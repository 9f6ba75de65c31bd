#include "model/kv_store.h"

#include <algorithm>
#include <cstring>

namespace tandem::model {
namespace {

// Rows a prefill slice may have beyond the window; one block of 64 costs 6 % of a 1,024 window.
constexpr int64_t kPrefillSlack = 64;

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

int64_t ring_len_for(int64_t sliding_window, int64_t num_draft_tokens, int64_t block_size) {
  return round_up(sliding_window + std::max(num_draft_tokens, kPrefillSlack), block_size);
}

KvBlockBytes kv_block_bytes(const io::TextConfig& target, int64_t block_size, core::DType dtype) {
  KvBlockBytes bytes;
  for (const io::LayerConfig& layer : target.layers) {
    const int64_t layer_bytes = 2 * block_size * layer.num_key_value_heads * layer.head_dim *
                                static_cast<int64_t>(core::dtype_bytes(dtype));
    (layer.type == io::LayerType::kSliding ? bytes.ring_block_bytes : bytes.page_block_bytes) +=
        layer_bytes;
  }
  return bytes;
}

KvStore::KvStore(const io::TextConfig& target, const KvStoreConfig& config,
                 std::vector<float> k_scales, std::vector<float> v_scales)
    : config_(config) {
  TANDEM_CHECK_EQ(config.ring_len % config.block_size, 0);
  for (size_t i = 0; i < target.layers.size(); ++i) {
    const io::LayerConfig& layer = target.layers[i];
    const bool ring = layer.type == io::LayerType::kSliding;
    const int64_t num_blocks = ring ? config.num_ring_blocks : config.num_page_blocks;
    const core::Shape shape{num_blocks * config.block_size, layer.num_key_value_heads,
                            layer.head_dim};
    core::Buffer k(config.dtype, shape);
    core::Buffer v(config.dtype, shape);
    ops::KvView view{k.view(), v.view()};
    if (!k_scales.empty()) view.k_scale = k_scales[i];
    if (!v_scales.empty()) view.v_scale = v_scales[i];
    views_.push_back(view);
    size_bytes_ += static_cast<int64_t>(k.size_bytes() + v.size_bytes());
    if (ring) ring_buffers_.insert(ring_buffers_.end(), {buffers_.size(), buffers_.size() + 1});
    buffers_.push_back(std::move(k));
    buffers_.push_back(std::move(v));
  }
}

void KvStore::copy_ring_blocks(std::span<const RingBlockCopy> copies) {
  for (const size_t index : ring_buffers_) {
    const core::Buffer& buffer = buffers_[index];
    const size_t block_bytes = buffer.size_bytes() / static_cast<size_t>(config_.num_ring_blocks);
    auto* bytes = static_cast<uint8_t*>(buffer.data());
    for (const RingBlockCopy& copy : copies) {
      TANDEM_CHECK_NE(copy.from, copy.to);
      TANDEM_CHECK_LT(std::max(copy.from, copy.to), config_.num_ring_blocks);
      std::memcpy(bytes + static_cast<size_t>(copy.to) * block_bytes,
                  bytes + static_cast<size_t>(copy.from) * block_bytes, block_bytes);
    }
  }
}

void KvStore::poison() {
  for (core::Buffer& buffer : buffers_) buffer.fill_bytes(0xff);  // NaN in F32, BF16 and E4M3
}

}  // namespace tandem::model
