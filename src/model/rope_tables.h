// One table of angles per distinct kind of layer.
#pragma once

#include <vector>

#include "model/activations.h"

namespace tandem::model {

struct RopeTables {
  std::vector<RopeTable> tables;
  std::vector<size_t> of_layer;  // [num_layers] index into tables

  RopeTables() = default;
  RopeTables(const io::TextConfig& config, const ModelOptions& options);
  void compute(const ops::Context& context, std::span<const int32_t> positions);
  const RopeTable& layer(size_t index) const { return tables[of_layer[index]]; }
};

}  // namespace tandem::model
