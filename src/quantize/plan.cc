#include "quantize/plan.h"

#include <cmath>

#include "quantize/modules.h"

namespace tandem::quantize {
namespace {

size_t tensor_bytes(const core::TensorView& view) {
  return static_cast<size_t>(view.shape.num_elements()) * core::dtype_bytes(view.dtype);
}

tl::unexpected<base::Error> never_exercised(const io::Checkpoint& checkpoint,
                                            const std::string& module, const char* what) {
  return base::invalid(
      "{}: {}: expected calibration to exercise {}, got {}; use more or longer prompts "
      "(--prompts, --max-new-tokens), or keep the module in BF16 with --exclude {}",
      checkpoint.dir().string(), module, what, "zeros only", module);
}

// The scale of a shared input by the chosen method.
base::Result<float> input_scale(const io::Checkpoint& checkpoint, const std::string& module,
                                const InputObservation* input, const ScaleOptions& options) {
  if (input == nullptr || input->amax == 0)
    return never_exercised(checkpoint, module, "the input of every module");
  switch (options.method) {
    case ScaleMethod::kMax:
      return scale_from_amax(input->amax);
    case ScaleMethod::kMse:
      return search_scale(input->weighted_magnitudes, input->amax);
    case ScaleMethod::kPercentile:
      break;
  }
  const float magnitude = percentile_magnitude(input->magnitudes, options.percentile);
  if (magnitude == 0)
    return base::invalid(
        "{}: {}: expected percentile {} of the input to be above 0, got 0 (largest {}); use a "
        "higher --percentile or --scale max",
        checkpoint.dir().string(), module, options.percentile, input->amax);
  return scale_from_amax(magnitude);
}

base::Result<ModuleScales> module_scales(const io::Checkpoint& checkpoint,
                                         const std::string& module, const InputObservation* input,
                                         const ScaleOptions& options, core::ThreadPool& pool) {
  ModuleScales scales;
  const core::TensorView weight = checkpoint.linear(module).weight;
  scales.weight_amax = weight_amax(weight, pool);
  if (!std::isfinite(scales.weight_amax))
    return base::invalid("{}: {}.weight: expected finite weights, got NaN or infinity",
                         checkpoint.dir().string(), module);
  TANDEM_ASSIGN_OR_RETURN(scales.input_scale, input_scale(checkpoint, module, input, options));
  scales.input_amax = input->amax;
  scales.weight_scale = scale_from_amax(scales.weight_amax);
  if (options.method == ScaleMethod::kMse) {
    const std::vector<double> means = input->mean_squares();
    scales.weight_scale =
        search_scale(weighted_magnitudes(weight, means, pool), scales.weight_amax);
  }
  checkpoint.release_pages(weight.data, tensor_bytes(weight));
  return scales;
}

base::Result<std::vector<KvLayerScales>> kv_scales(const io::Checkpoint& checkpoint,
                                                   const CalibrationObserver& observer) {
  std::vector<KvLayerScales> layers;
  for (int64_t layer = 0; layer < checkpoint.config().text.num_layers(); ++layer) {
    const KvObservation* kv = observer.find_kv(layer);
    if (kv == nullptr || kv->k_amax == 0 || kv->v_amax == 0)
      return base::invalid(
          "{}: layers.{}.self_attn: expected calibration to see keys and values, got zeros only",
          checkpoint.dir().string(), layer);
    layers.push_back(
        {kv->k_amax, kv->v_amax, scale_from_amax(kv->k_amax), scale_from_amax(kv->v_amax)});
  }
  return layers;
}

}  // namespace

base::Status require_bf16(const io::Checkpoint& checkpoint) {
  if (!checkpoint.quantization().quantized) return {};
  return base::invalid(
      "{}: expected a BF16 checkpoint, got one that is quantized already ({}); quantize the "
      "original instead",
      checkpoint.dir().string(), checkpoint.quantization().algorithm);
}

base::Status weigh_channels(const io::Checkpoint& checkpoint, core::ThreadPool& pool,
                            const Progress& progress, CalibrationObserver& observer) {
  const auto groups = fused_groups(quantizable_modules(checkpoint));
  int64_t done = 0;
  for (const auto& group : groups) {
    std::vector<double> sums(static_cast<size_t>(checkpoint.linear(group.front()).weight.shape[1]),
                             0);
    for (const std::string& module : group) {
      const core::TensorView weight = checkpoint.linear(module).weight;
      add_column_squares(weight, sums, pool);
      checkpoint.release_pages(weight.data, tensor_bytes(weight));
    }
    observer.set_channel_weights(group.front(), std::move(sums));
    TANDEM_RETURN_IF_ERROR(report_progress(progress, "weighing channels", ++done,
                                           static_cast<int64_t>(groups.size())));
  }
  return {};
}

base::Result<ModelPlan> plan_scales(const io::Checkpoint& checkpoint,
                                    const CalibrationObserver& observer,
                                    const std::set<std::string>& excluded,
                                    const ScaleOptions& options, core::ThreadPool& pool,
                                    const Progress& progress) {
  ModelPlan plan;
  plan.options = options;
  const std::vector<std::string> modules = quantizable_modules(checkpoint);
  int64_t done = 0;
  for (const std::string& module : modules) {
    TANDEM_RETURN_IF_ERROR(report_progress(progress, "measuring weights", done++,
                                           static_cast<int64_t>(modules.size())));
    if (excluded.contains(module)) {
      plan.excluded.insert(module);
      continue;
    }
    TANDEM_ASSIGN_OR_RETURN(
        plan.quantized[module],
        module_scales(checkpoint, module, observer.find(module), options, pool));
  }
  if (plan.quantized.empty())
    return base::invalid("{}: expected at least one module to quantize, got none: all are excluded",
                         checkpoint.dir().string());
  if (options.kv_fp8 && checkpoint.config().kind == io::ModelKind::kTarget) {
    TANDEM_ASSIGN_OR_RETURN(plan.kv, kv_scales(checkpoint, observer));
  }
  return plan;
}

}  // namespace tandem::quantize
