// The only way to look at activations: calibration and debugging see what serving computes.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/tensor_view.h"

namespace tandem::model {

class Observer {
 public:
  virtual ~Observer() = default;
  // The input of a Linear, before it is quantized. Projections that share an input (q, k, v; gate,
  // up) are reported once each. module: canonical name ("layers.3.mlp.up_proj").
  // x [rows, in_features] F32 or BF16.
  virtual void on_linear_input(std::string_view module, const core::TensorView& x) = 0;
  // What a target layer writes to its KV store: K after its norm and RoPE, V after its norm.
  // k, v [rows, num_key_value_heads, head_dim].
  virtual void on_kv(int64_t layer, const core::TensorView& k, const core::TensorView& v) {
    (void)layer, (void)k, (void)v;
  }
};

}  // namespace tandem::model
