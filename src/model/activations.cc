#include "model/activations.h"

#include <algorithm>

namespace tandem::model {

Activations::Activations(const io::TextConfig& config, const ModelOptions& options) {
  int64_t q_dim = 0;
  int64_t kv_dim = 0;
  for (const io::LayerConfig& layer : config.layers) {
    q_dim = std::max(q_dim, config.num_attention_heads * layer.head_dim);
    kv_dim = std::max(kv_dim, layer.num_key_value_heads * layer.head_dim);
  }
  const core::DType dtype = options.activation_dtype();
  const int64_t rows = options.max_rows;
  x = core::Buffer(dtype, {rows, config.hidden_size});
  normed = core::Buffer(dtype, {rows, config.hidden_size});
  branch = core::Buffer(dtype, {rows, config.hidden_size});
  q = core::Buffer(dtype, {rows, q_dim});
  k = core::Buffer(dtype, {rows, kv_dim});
  v = core::Buffer(dtype, {rows, kv_dim});
  context = core::Buffer(dtype, {rows, q_dim});
  gate = core::Buffer(dtype, {rows, config.intermediate_size});
  up = core::Buffer(dtype, {rows, config.intermediate_size});
}

RopeTable::RopeTable(int64_t head_dim, const io::RopeConfig& rope, int64_t max_rows,
                     bool round_bf16_in)
    : inv_freq(ops::rope_inv_freq(head_dim, rope.theta, rope.partial_rotary_factor)),
      cos(core::DType::kF32, {max_rows, head_dim / 2}),
      sin(core::DType::kF32, {max_rows, head_dim / 2}),
      round_bf16(round_bf16_in) {}

void RopeTable::compute(const ops::Context& context, std::span<const int32_t> positions) {
  const auto rows = static_cast<int64_t>(positions.size());
  ops::rope_angles(context, positions, inv_freq, round_bf16, cos.rows(rows), sin.rows(rows));
}

}  // namespace tandem::model
