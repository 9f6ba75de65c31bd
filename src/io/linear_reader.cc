#include "io/linear_reader.h"

#include <cstring>

#include "io/scale_values.h"

namespace tandem::io {
namespace {

using core::DType;
using core::Shape;
using Stored = Checkpoint::StoredTensor;

std::string scale_name(const RequiredLinear& linear, const char* kind) {
  return linear.name + "." + kind;
}

// A module that must be BF16 has no scales; `reason` says why it must be.
base::Status check_no_scales(const TensorTable& table, const RequiredLinear& linear,
                             const std::string& reason) {
  for (const char* kind : {"weight_scale", "input_scale"}) {
    const std::string name = scale_name(linear, kind);
    if (table.find(name) != nullptr)
      return base::invalid("{}: expected no scale ({}), got one", table.where(name), reason);
  }
  return {};
}

base::Result<LinearWeights> read_bf16(TensorTable& table, const RequiredLinear& linear,
                                      const std::string& reason) {
  const std::string name = linear.name + ".weight";
  const Stored* weight = table.take(name);
  TANDEM_CHECK(weight != nullptr);
  if (weight->view.dtype != DType::kBF16)
    return base::invalid("{}: expected BF16 ({}), got {}", table.where(name), reason,
                         core::dtype_name(weight->view.dtype));
  TANDEM_RETURN_IF_ERROR(
      check_tensor(table, name, weight->view, DType::kBF16, Shape{linear.out, linear.in}));
  TANDEM_RETURN_IF_ERROR(check_no_scales(table, linear, reason));
  LinearWeights result;
  result.weight = weight->view;
  return result;
}

// Shapes a scale tensor may have besides the one it is kept in.
bool has_scale_shape(const Shape& shape, const RequiredLinear& linear, WeightFormat format,
                     Shape& kept) {
  if (format == WeightFormat::kFp8Block) {
    const int64_t rows = (linear.out + kFp8BlockSize - 1) / kFp8BlockSize;
    const int64_t cols = (linear.in + kFp8BlockSize - 1) / kFp8BlockSize;
    kept = Shape{rows, cols};
    return shape == kept || shape == Shape{rows, 1, cols, 1};
  }
  kept = Shape{linear.out};
  return shape == kept || shape == Shape{linear.out, 1};
}

// Scales that are no scalars, as F32 in the layout of LinearWeights::weight_scales.
base::Result<core::TensorView> read_scale_array(const TensorTable& table, const Stored& tensor,
                                                const RequiredLinear& linear,
                                                const QuantizationLayout& layout,
                                                std::vector<core::Buffer>& owned) {
  const std::string where = table.where(tensor.canonical_name);
  const core::TensorView& view = tensor.view;
  Shape kept;
  const bool shape_fits = has_scale_shape(view.shape, linear, layout.format, kept);
  const bool one_for_all = layout.scalar_weight_scale && view.shape.num_elements() == 1;
  if (!is_scale_dtype(view.dtype, layout.loose_scales) || (!shape_fits && !one_for_all))
    return base::invalid("{}: expected F32{} {}, got {} {}", where,
                         layout.loose_scales ? " (or BF16)" : "", core::to_string(kept),
                         core::dtype_name(view.dtype), core::to_string(view.shape));
  core::Buffer buffer(DType::kF32, kept);
  auto* scales = static_cast<float*>(buffer.data());
  for (int64_t i = 0; i < kept.num_elements(); ++i) {
    scales[i] = scale_value(view, one_for_all ? 0 : i);
    TANDEM_RETURN_IF_ERROR(check_scale_value(fmt::format("{}[{}]", where, i), scales[i]));
  }
  owned.push_back(std::move(buffer));
  return owned.back().view();
}

// input_scale where the format has one; 0 where activations are not scaled statically.
base::Result<float> read_input_scale(TensorTable& table, const QuantizationConfig& quantization,
                                     const RequiredLinear& linear) {
  const std::string name = scale_name(linear, "input_scale");
  const QuantizationLayout& layout = quantization.layout;
  const Stored* tensor = layout.allows_input_scale ? table.take(name) : nullptr;
  if (tensor != nullptr) return read_scalar_scale(table, *tensor, layout.loose_scales);
  if (layout.needs_input_scale)
    return base::invalid(
        "{}: expected F32 [] or [1], got no such tensor: {} says that {} has static input scales",
        table.where(name), quantization.source, linear.name);
  return 0.0F;
}

base::Result<LinearWeights> read_fp8(TensorTable& table, const QuantizationConfig& quantization,
                                     const RequiredLinear& linear,
                                     std::vector<core::Buffer>& owned) {
  const std::string name = linear.name + ".weight";
  const Stored* weight = table.take(name);
  TANDEM_CHECK(weight != nullptr);
  if (weight->view.dtype != DType::kF8E4M3)
    return base::invalid("{}: expected F8_E4M3 ({} says {} and does not exclude {}), got {}",
                         table.where(name), quantization.source, quantization.info.algorithm,
                         linear.name, core::dtype_name(weight->view.dtype));
  TANDEM_RETURN_IF_ERROR(
      check_tensor(table, name, weight->view, DType::kF8E4M3, Shape{linear.out, linear.in}));
  const std::string weight_scale = scale_name(linear, "weight_scale");
  const Stored* scale = table.take(weight_scale);
  if (scale == nullptr)
    return base::invalid("{}: expected a scale for the F8_E4M3 weight, got no such tensor",
                         table.where(weight_scale));

  LinearWeights result;
  result.format = quantization.layout.format;
  result.weight = weight->view;
  if (result.format == WeightFormat::kFp8PerTensor) {
    TANDEM_ASSIGN_OR_RETURN(result.weight_scale,
                            read_scalar_scale(table, *scale, quantization.layout.loose_scales));
  } else {
    TANDEM_ASSIGN_OR_RETURN(result.weight_scales,
                            read_scale_array(table, *scale, linear, quantization.layout, owned));
  }
  TANDEM_ASSIGN_OR_RETURN(result.input_scale, read_input_scale(table, quantization, linear));
  return result;
}

}  // namespace

base::Status check_tensor(const TensorTable& table, std::string_view canonical_name,
                          const core::TensorView& view, DType dtype, const Shape& shape) {
  if (view.dtype == dtype && view.shape == shape) return {};
  return base::invalid("{}: expected {} {}, got {} {}", table.where(canonical_name),
                       core::dtype_name(dtype), core::to_string(shape),
                       core::dtype_name(view.dtype), core::to_string(view.shape));
}

base::Result<LinearWeights> read_linear(TensorTable& table, const QuantizationConfig& quantization,
                                        const RequiredLinear& linear,
                                        std::vector<core::Buffer>& owned) {
  const std::string name = linear.name + ".weight";
  if (table.find(name) == nullptr)
    return base::invalid("{}: expected a weight of shape {}, got no such tensor", table.where(name),
                         core::to_string(Shape{linear.out, linear.in}));
  if (!quantization.info.quantized)
    return read_bf16(table, linear,
                     "config.json has no quantization_config and there is no "
                     "hf_quant_config.json");
  if (linear.always_bf16) return read_bf16(table, linear, "this module always stays BF16");
  const std::string entry = quantization.exclusions.matching_entry(linear.name);
  if (!entry.empty())
    return read_bf16(
        table, linear,
        fmt::format("{} excludes {} by \"{}\"", quantization.source, linear.name, entry));
  return read_fp8(table, quantization, linear, owned);
}

}  // namespace tandem::io
