#include "ops/linear.h"

#include "ops/checks.h"
#include "ops/cpu/cpu.h"
#include "ops/reference/reference.h"

namespace tandem::ops {
namespace {

void check_scales(const LinearWeight& weight) {
  using core::DType;
  constexpr int64_t kBlock = 128;
  const int64_t out = weight.out_features();
  const int64_t in = weight.in_features();
  if (weight.format == LinearFormat::kFp8Channel) {
    check_dtype("linear", "weight_scales", weight.weight_scales, DType::kF32);
    TANDEM_CHECK_EQ(weight.weight_scales.shape.num_elements(), out);
  } else if (weight.format == LinearFormat::kFp8Block) {
    check_dtype("linear", "weight_scales", weight.weight_scales, DType::kF32);
    check_shape("linear", "weight_scales", weight.weight_scales,
                core::Shape{(out + kBlock - 1) / kBlock, (in + kBlock - 1) / kBlock});
  }
}

void check_weight(const core::TensorView& x, const LinearWeight& weight,
                  const core::TensorView& output) {
  using core::DType;
  TANDEM_CHECK_EQ(weight.weight.shape.rank(), size_t{2});
  TANDEM_CHECK_EQ(weight.in_features(), x.cols());
  const bool bf16 = weight.format == LinearFormat::kBF16;
  const bool f32 = weight.format == LinearFormat::kF32;
  check_dtype("linear", "weight", weight.weight,
              bf16 ? DType::kBF16 : (f32 ? DType::kF32 : DType::kF8E4M3));
  TANDEM_CHECK_MSG(!(bf16 || f32) || weight.activation == ActivationQuantization::kNone,
                   "linear: only FP8 weights take quantized activations");
  check_scales(weight);
  check_activation("linear", "output", output);
  check_shape("linear", "output", output, core::Shape{x.rows(), weight.out_features()});
}

}  // namespace

void linear(const Context& context, const core::TensorView& x,
            std::span<const LinearWeight> weights, std::span<const core::TensorView> outputs) {
  TANDEM_CHECK_EQ(weights.size(), outputs.size());
  TANDEM_CHECK_EQ(x.shape.rank(), size_t{2});
  check_activation("linear", "x", x);
  for (size_t i = 0; i < weights.size(); ++i) check_weight(x, weights[i], outputs[i]);
  if (x.rows() == 0) return;
  if (!cpu::use_reference(context)) return cpu::linear(context, x, weights, outputs);
  for (size_t i = 0; i < weights.size(); ++i) reference::linear(context, x, weights[i], outputs[i]);
}

}  // namespace tandem::ops
