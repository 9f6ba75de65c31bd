#include "model/kv_store.h"

#include <algorithm>

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
    const int64_t num_blocks =
        layer.type == io::LayerType::kSliding ? config.num_ring_blocks : config.num_page_blocks;
    const core::Shape shape{num_blocks * config.block_size, layer.num_key_value_heads,
                            layer.head_dim};
    core::Buffer k(config.dtype, shape);
    core::Buffer v(config.dtype, shape);
    ops::KvView view{k.view(), v.view()};
    if (!k_scales.empty()) view.k_scale = k_scales[i];
    if (!v_scales.empty()) view.v_scale = v_scales[i];
    views_.push_back(view);
    size_bytes_ += static_cast<int64_t>(k.size_bytes() + v.size_bytes());
    buffers_.push_back(std::move(k));
    buffers_.push_back(std::move(v));
  }
}

void KvStore::poison() {
  for (core::Buffer& buffer : buffers_) buffer.fill_bytes(0xff);  // NaN in F32, BF16 and E4M3
}

}  // namespace tandem::model
