// y = x W^T, whatever the weight is made of. The only place that knows weight formats.
#pragma once

#include <span>
#include <vector>

#include "core/tensor_view.h"
#include "ops/context.h"

namespace tandem::ops {

enum class LinearFormat {
  kBF16,        // weight [out, in] BF16
  kF32,         // weight [out, in] F32
  kFp8Tensor,   // weight [out, in] F8_E4M3, one weight_scale
  kFp8Channel,  // weight [out, in] F8_E4M3, weight_scales [out] F32
  kFp8Block,    // weight [out, in] F8_E4M3, weight_scales [ceil(out/128), ceil(in/128)] F32
};

// What happens to x before the product (FP8 formats only).
enum class ActivationQuantization {
  kNone,      // weight-only (W8A16): x as it is
  kStatic,    // x_q = e4m3(clamp(x / input_scale, +-448)), nearest even (ModelOpt FP8)
  kPerToken,  // input_scale = max|x_row| / 448 for each row
};

// One projection. Several projections of the same x (q, k, v; gate, up) are run as one call, each
// with its own scales: no shard is requantized.
struct LinearWeight {
  LinearFormat format = LinearFormat::kBF16;
  ActivationQuantization activation = ActivationQuantization::kNone;
  core::TensorView weight;         // [out, in]
  float weight_scale = 1.0F;       // kFp8Tensor
  float input_scale = 1.0F;        // kStatic
  core::TensorView weight_scales;  // kFp8Channel, kFp8Block

  int64_t out_features() const { return weight.shape[0]; }
  int64_t in_features() const { return weight.shape[1]; }
};

// outputs[i] = x weights[i]^T. x [n, in] F32 or BF16; outputs[i] [n, out_i] F32 or BF16.
// FP32 accumulation over `in` in one fixed order (linear.cc says which). FP8: the sum of products
// of E4M3 values (exact in FP32) times input_scale * weight_scale. x / input_scale is an FP32
// division.
void linear(const Context& context, const core::TensorView& x,
            std::span<const LinearWeight> weights, std::span<const core::TensorView> outputs);

}  // namespace tandem::ops
