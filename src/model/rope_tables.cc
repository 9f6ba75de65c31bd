#include "model/rope_tables.h"

namespace tandem::model {

RopeTables::RopeTables(const io::TextConfig& config, const ModelOptions& options) {
  const bool round = options.activation_dtype() == core::DType::kBF16;
  std::vector<io::LayerConfig> kinds;
  for (const io::LayerConfig& layer : config.layers) {
    size_t kind = 0;
    while (kind < kinds.size() &&
           !(kinds[kind].head_dim == layer.head_dim && kinds[kind].rope.theta == layer.rope.theta &&
             kinds[kind].rope.partial_rotary_factor == layer.rope.partial_rotary_factor))
      ++kind;
    if (kind == kinds.size()) {
      kinds.push_back(layer);
      tables.emplace_back(layer.head_dim, layer.rope, options.max_rows, round);
    }
    of_layer.push_back(kind);
  }
}

void RopeTables::compute(const ops::Context& context, std::span<const int32_t> positions) {
  for (RopeTable& table : tables) table.compute(context, positions);
}

}  // namespace tandem::model
