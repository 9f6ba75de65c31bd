#include "model/linear.h"

#include <algorithm>

#include "core/e4m3.h"
#include "core/fp16.h"

namespace tandem::model {
namespace {

ops::LinearWeight to_ops(const io::LinearWeights& stored, bool weight_only) {
  using ops::ActivationQuantization;
  ops::LinearWeight weight;
  weight.weight = stored.weight;
  weight.weight_scale = stored.weight_scale;
  weight.input_scale = stored.input_scale;
  weight.weight_scales = stored.weight_scales;
  switch (stored.format) {
    case io::WeightFormat::kBF16:
      weight.format = stored.weight.dtype == core::DType::kF32 ? ops::LinearFormat::kF32
                                                               : ops::LinearFormat::kBF16;
      return weight;
    case io::WeightFormat::kFp8PerTensor:
      weight.format = ops::LinearFormat::kFp8Tensor;
      if (!weight_only && stored.input_scale > 0)
        weight.activation = ActivationQuantization::kStatic;
      return weight;
    case io::WeightFormat::kFp8PerChannelPerToken:
      weight.format = ops::LinearFormat::kFp8Channel;
      if (!weight_only) weight.activation = ActivationQuantization::kPerToken;
      return weight;
    case io::WeightFormat::kFp8Block:
      weight.format = ops::LinearFormat::kFp8Block;
      return weight;
  }
  return weight;
}

}  // namespace

Linear::Linear(const io::Checkpoint& checkpoint, std::vector<std::string> modules,
               const ModelOptions& options)
    : modules_(std::move(modules)) {
  const bool weight_only =
      options.fp8 == Fp8Arithmetic::kWeightOnly || checkpoint.quantization().weight_only;
  for (const std::string& module : modules_)
    weights_.push_back(to_ops(checkpoint.linear(module), weight_only));
  if (options.fp8 == Fp8Arithmetic::kVllmParity) merge_as_vllm();
}

// vLLM keeps one weight scale per fused module, the largest of its shards, and requantizes every
// shard with it after going through FP16 (modelopt_fp8 section 4). For A/B runs only.
void Linear::merge_as_vllm() {
  const bool all_fp8 = std::ranges::all_of(weights_, [](const ops::LinearWeight& weight) {
    return weight.format == ops::LinearFormat::kFp8Tensor;
  });
  if (!all_fp8 || weights_.size() < 2) return;
  float weight_scale = 0;
  float input_scale = 0;
  for (const ops::LinearWeight& weight : weights_) {
    weight_scale = std::max(weight_scale, weight.weight_scale);
    input_scale = std::max(input_scale, weight.input_scale);
  }
  for (ops::LinearWeight& weight : weights_) {
    weight.input_scale = input_scale;
    if (weight.weight_scale == weight_scale) continue;
    core::Buffer merged(core::DType::kF8E4M3, weight.weight.shape);
    const auto* source = static_cast<const uint8_t*>(weight.weight.data);
    auto* target = static_cast<uint8_t*>(merged.data());
    for (int64_t i = 0; i < weight.weight.shape.num_elements(); ++i) {
      const float value = core::round_to_fp16(core::e4m3_to_float(source[i]) * weight.weight_scale);
      target[i] = core::float_to_e4m3(value / weight_scale);
    }
    weight.weight = merged.view();
    weight.weight_scale = weight_scale;
    requantized_.push_back(std::move(merged));
  }
}

void Linear::forward(const ops::Context& context, const core::TensorView& x,
                     std::span<const core::TensorView> outputs, Observer* observer) const {
  if (observer != nullptr)
    for (const std::string& module : modules_) observer->on_linear_input(module, x);
  ops::linear(context, x, weights_, outputs);
}

}  // namespace tandem::model
