#include "quantize/variant.h"

namespace tandem::quantize {
namespace {

struct Variant {
  explicit Variant(io::Checkpoint opened) : checkpoint(std::move(opened)) {}

  std::vector<core::Buffer> weights;  // [out, in] F8_E4M3 of each replaced module
  io::Checkpoint checkpoint;
};

}  // namespace

base::Result<std::shared_ptr<const io::Checkpoint>> make_variant(
    const io::Checkpoint& source, const ModelPlan& plan, const std::vector<std::string>& modules,
    core::ThreadPool& pool) {
  TANDEM_ASSIGN_OR_RETURN(io::Checkpoint opened, io::Checkpoint::open(source.dir()));
  auto variant = std::make_shared<Variant>(std::move(opened));
  for (const std::string& module : modules) {
    const ModuleScales& scales = plan.quantized.at(module);
    const core::TensorView weight = source.linear(module).weight;
    core::Buffer bytes(core::DType::kF8E4M3, weight.shape);
    const WeightEncoder encoder(scales.weight_scale, plan.options.quotient);
    encoder.encode({weight.ptr<core::BFloat16>(), static_cast<size_t>(weight.shape.num_elements())},
                   static_cast<uint8_t*>(bytes.data()), pool);
    io::LinearWeights linear;
    linear.format = io::WeightFormat::kFp8PerTensor;
    linear.weight = bytes.view();
    linear.weight_scale = scales.weight_scale;
    // 0: the model takes the weight alone.
    linear.input_scale = plan.options.weight_only ? 0.0F : scales.input_scale;
    variant->checkpoint.replace_linear(module, linear);
    variant->weights.push_back(std::move(bytes));
  }
  return std::shared_ptr<const io::Checkpoint>(variant, &variant->checkpoint);
}

}  // namespace tandem::quantize
