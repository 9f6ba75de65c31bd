// Scalars: weight, input and KV scales.
#include <cmath>
#include <cstring>

#include "base/log.h"
#include "io/linear_reader.h"
#include "io/scale_values.h"

namespace tandem::io {
namespace {

using core::DType;

// Where ModelOpt and compressed-tensors put the KV scales of a layer.
const Checkpoint::StoredTensor* take_kv_scale(TensorTable& table, int64_t layer, char which) {
  for (const std::string& name :
       {fmt::format("layers.{}.self_attn.{}_proj.{}_scale", layer, which, which),
        fmt::format("layers.{}.self_attn.{}_scale", layer, which)})
    if (const auto* tensor = table.take(name)) return tensor;
  return nullptr;
}

void warn_about_kv_scales(const std::vector<Checkpoint::KvScales>& scales,
                          const QuantizationConfig& quantization) {
  constexpr float kUnusual = 0.5F;
  for (size_t i = 0; i < scales.size(); ++i)
    if (scales[i].calibrated && std::max(scales[i].k_scale, scales[i].v_scale) > kUnusual) {
      base::log_warning("KV scales above {} are unusual: layer {} has k_scale {} and v_scale {}",
                        kUnusual, i, scales[i].k_scale, scales[i].v_scale);
      return;
    }
  if (quantization.info.kv_cache_fp8 && (scales.empty() || !scales[0].calibrated))
    base::log_warning("{}: an FP8 KV cache is asked for without k_scale and v_scale: 1.0 is used",
                      quantization.source);
}

}  // namespace

float scale_value(const core::TensorView& view, int64_t index) {
  if (view.dtype == DType::kF32) {
    float value = 0;
    std::memcpy(&value, static_cast<const char*>(view.data) + index * 4, sizeof(value));
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, static_cast<const char*>(view.data) + index * 2, sizeof(bits));
  if (view.dtype == DType::kBF16) return core::to_float(core::BFloat16{bits});
  TANDEM_CHECK(view.dtype == DType::kF16);
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                          : exponent == 31
                              ? (mantissa == 0 ? INFINITY : NAN)
                              : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

bool is_scale_dtype(DType dtype, bool loose) {
  return dtype == DType::kF32 || (loose && (dtype == DType::kBF16 || dtype == DType::kF16));
}

base::Status check_scale_value(const std::string& where, float value) {
  constexpr float kSentinel = 3.4e38F;
  const auto refuse = [&](const char* what) {
    return base::invalid("{}: expected a scale that is finite, positive and normal, got {} ({})",
                         where, value, what);
  };
  if (std::isnan(value)) return refuse("not a number");
  if (std::isinf(value)) return refuse("infinite");
  if (std::abs(value) >= kSentinel) return refuse("the sentinel of a scale that was never filled");
  if (value == 0) return refuse("zero; did the calibration reach this module?");
  if (value < 0) return refuse("negative");
  if (!std::isnormal(value)) return refuse("denormal");
  return {};
}

base::Result<float> read_scalar_scale(const TensorTable& table,
                                      const Checkpoint::StoredTensor& tensor, bool loose) {
  const core::TensorView& view = tensor.view;
  const std::string where = table.where(tensor.canonical_name);
  const bool scalar = view.shape == core::Shape{} || view.shape == core::Shape{1};
  if (!is_scale_dtype(view.dtype, loose) || !scalar)
    return base::invalid("{}: expected F32 [] or [1]{}, got {} {}", where,
                         loose ? " (or BF16)" : "", core::dtype_name(view.dtype),
                         core::to_string(view.shape));
  const float value = scale_value(view, 0);
  TANDEM_RETURN_IF_ERROR(check_scale_value(where, value));
  return value;
}

base::Result<std::vector<Checkpoint::KvScales>> read_kv_scales(
    TensorTable& table, const QuantizationConfig& quantization, int64_t num_layers) {
  const bool loose = quantization.layout.loose_scales;
  std::vector<Checkpoint::KvScales> scales(static_cast<size_t>(num_layers));
  if (!quantization.info.quantized) return scales;  // stray scales are then refused as unexpected
  int64_t num_calibrated = 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const auto* k = take_kv_scale(table, layer, 'k');
    const auto* v = take_kv_scale(table, layer, 'v');
    if (k == nullptr && v == nullptr) continue;
    Checkpoint::KvScales& scale = scales[static_cast<size_t>(layer)];
    // Only one present: it holds for both, as in the servers these files are made for.
    TANDEM_ASSIGN_OR_RETURN(scale.k_scale, read_scalar_scale(table, k != nullptr ? *k : *v, loose));
    TANDEM_ASSIGN_OR_RETURN(scale.v_scale, read_scalar_scale(table, v != nullptr ? *v : *k, loose));
    scale.calibrated = true;
    ++num_calibrated;
  }
  if (num_calibrated != 0 && num_calibrated != num_layers)
    for (int64_t layer = 0; layer < num_layers; ++layer)
      if (!scales[static_cast<size_t>(layer)].calibrated)
        return base::invalid(
            "{}: expected KV scales in all {} layers or in none, got {} layers "
            "with, this one without",
            table.where(fmt::format("layers.{}.self_attn.k_proj.k_scale", layer)), num_layers,
            num_calibrated);
  warn_about_kv_scales(scales, quantization);
  return scales;
}

}  // namespace tandem::io
