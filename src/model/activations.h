// Scratch of a forward pass, allocated once for the largest batch.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "io/model_config.h"
#include "model/options.h"
#include "ops/rope.h"

namespace tandem::model {

struct Activations {
  Activations() = default;
  Activations(const io::TextConfig& config, const ModelOptions& options);

  core::Buffer x;        // [max_rows, hidden] the residual stream
  core::Buffer normed;   // [max_rows, hidden]
  core::Buffer branch;   // [max_rows, hidden] output of a sub-block before its norm
  core::Buffer q;        // [max_rows, max(num_heads * head_dim)]
  core::Buffer k;        // [max_rows, max(num_key_value_heads * head_dim)]
  core::Buffer v;        // same
  core::Buffer context;  // [max_rows, max(num_heads * head_dim)] attention's output
  core::Buffer gate;     // [max_rows, intermediate]
  core::Buffer up;       // [max_rows, intermediate]
};

// cos and sin of one RoPE type for the rows of a pass.
struct RopeTable {
  RopeTable() = default;
  RopeTable(int64_t head_dim, const io::RopeConfig& rope, int64_t max_rows, bool round_bf16);
  void compute(const ops::Context& context, std::span<const int32_t> positions);

  std::vector<float> inv_freq;  // [head_dim / 2]
  core::Buffer cos;             // [max_rows, head_dim / 2]
  core::Buffer sin;             // same
  bool round_bf16 = false;
};

}  // namespace tandem::model
