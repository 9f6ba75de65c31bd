#include "quantize/eval_modules.h"

#include <algorithm>
#include <cmath>

#include "core/e4m3.h"
#include "model/linear.h"
#include "quantize/modules.h"

namespace tandem::quantize {
namespace {

constexpr std::string_view kPhase = "comparing layers";
constexpr std::string_view kEmbedding = "embed_tokens";
constexpr int64_t kMaxElements = int64_t{1} << 22;  // of one projection that are compared

float weight_scale_at(const io::LinearWeights& weights, int64_t row, int64_t col) {
  switch (weights.format) {
    case io::WeightFormat::kBF16:
      return 1.0F;
    case io::WeightFormat::kFp8PerTensor:
      return weights.weight_scale;
    case io::WeightFormat::kFp8PerChannelPerToken:
      return weights.weight_scales.ptr<float>()[row];
    case io::WeightFormat::kFp8Block:
      return weights.weight_scales.row<float>(row / io::kFp8BlockSize)[col / io::kFp8BlockSize];
  }
  return 1.0F;
}

double norm_ratio(double difference, double reference) {
  return reference > 0 ? std::sqrt(difference / reference) : (difference > 0 ? 1.0 : 0.0);
}

double correlation_of(double product, double a, double b) {
  return a > 0 && b > 0 ? product / std::sqrt(a * b) : (a == b ? 1.0 : 0.0);
}

// |y_w - y_r| / |y_r| over the kept rows.
double output_error(const ops::Context& context, const ModulePair& pair, const std::string& module,
                    const core::TensorView& x, const model::ModelOptions& options) {
  const model::Linear candidate(*pair.candidate, {module}, options);
  const model::Linear reference(*pair.reference, {module}, options);
  const core::Shape shape{x.rows(), candidate.out_features(0)};
  const core::Buffer ours(core::DType::kF32, shape);
  const core::Buffer theirs(core::DType::kF32, shape);
  const core::TensorView our_view = ours.view();
  const core::TensorView their_view = theirs.view();
  candidate.forward(context, x, std::span(&our_view, 1), nullptr);
  reference.forward(context, x, std::span(&their_view, 1), nullptr);
  double difference = 0;
  double norm = 0;
  for (int64_t i = 0; i < shape.num_elements(); ++i) {
    const auto a = static_cast<double>(our_view.ptr<float>()[i]);
    const auto b = static_cast<double>(their_view.ptr<float>()[i]);
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  return norm_ratio(difference, norm);
}

base::Status check_same_shape(const ModulePair& pair, const std::string& module,
                              const core::Shape& candidate, const core::Shape& reference) {
  if (candidate == reference) return {};
  return base::invalid("{}: {}: expected shape {}, as in {}, got {}; give the model it was made of",
                       pair.reference->dir().string(), module, core::to_string(candidate),
                       pair.candidate->dir().string(), core::to_string(reference));
}

// The token embedding as a projection that is never quantized.
base::Status compare_embedding(const ModulePair& pair, std::vector<ModuleScore>& scores) {
  const std::string name = std::string(kEmbedding) + ".weight";
  const auto candidate = pair.candidate->find(name);
  const auto reference = pair.reference->find(name);
  if (!candidate || !reference) return {};
  TANDEM_RETURN_IF_ERROR(
      check_same_shape(pair, std::string(kEmbedding), candidate->shape, reference->shape));
  io::LinearWeights ours, theirs;
  ours.weight = *candidate;
  theirs.weight = *reference;
  ModuleScore score;
  score.assistant = pair.assistant;
  score.module = kEmbedding;
  compare_weights(ours, theirs, false, score);
  scores.push_back(std::move(score));
  return {};
}

bool has_module(const io::Checkpoint& checkpoint, const std::string& module) {
  return checkpoint.find(module + ".weight").has_value();
}

}  // namespace

void dequantize_row(const io::LinearWeights& weights, int64_t row, std::vector<float>& out) {
  const int64_t cols = weights.weight.shape[1];
  out.resize(static_cast<size_t>(cols));
  for (int64_t c = 0; c < cols; ++c) {
    float value = 0;
    if (weights.weight.dtype == core::DType::kF32)
      value = weights.weight.row<float>(row)[c];
    else if (weights.weight.dtype == core::DType::kBF16)
      value = core::to_float(weights.weight.row<core::BFloat16>(row)[c]);
    else
      value = core::e4m3_to_float(static_cast<const uint8_t*>(
                  weights.weight.data)[row * weights.weight.row_stride + c]) *
              weight_scale_at(weights, row, c);
    out[static_cast<size_t>(c)] = value;
  }
}

void compare_weights(const io::LinearWeights& candidate, const io::LinearWeights& reference,
                     bool swap_halves, ModuleScore& score) {
  const int64_t rows = candidate.weight.shape[0];
  const int64_t cols = candidate.weight.shape[1];
  const int64_t stride = std::max<int64_t>(1, rows * cols / kMaxElements);
  std::vector<float> ours, theirs;
  double product = 0, our_norm = 0, their_norm = 0, difference = 0, swapped = 0;
  for (int64_t row = 0; row < rows; row += stride) {
    dequantize_row(candidate, row, ours);
    dequantize_row(reference, row, theirs);
    for (size_t c = 0; c < ours.size(); ++c) {
      const auto w = static_cast<double>(ours[c]);
      const auto r = static_cast<double>(theirs[c]);
      product += w * r;
      our_norm += w * w;
      their_norm += r * r;
      difference += (w - r) * (w - r);
      if (swap_halves)
        swapped += w * static_cast<double>(theirs[(c + ours.size() / 2) % ours.size()]);
    }
  }
  score.factor = their_norm > 0 ? product / their_norm : 1;
  score.correlation = correlation_of(product, our_norm, their_norm);
  score.swapped_correlation = swap_halves ? correlation_of(swapped, our_norm, their_norm) : 0;
  score.weight_error = norm_ratio(difference, their_norm);
}

base::Result<std::vector<ModuleScore>> compare_modules(const ops::Context& context,
                                                       const ModulePair& pair,
                                                       const model::ModelOptions& options,
                                                       const Progress& progress) {
  std::vector<ModuleScore> scores;
  if (pair.reference != nullptr) TANDEM_RETURN_IF_ERROR(compare_embedding(pair, scores));
  const std::vector<std::string> modules = pair.candidate->linear_modules();
  const bool weight_only = options.fp8 == model::Fp8Arithmetic::kWeightOnly ||
                           pair.candidate->quantization().weight_only;
  for (size_t i = 0; i < modules.size(); ++i) {
    TANDEM_RETURN_IF_ERROR(report_progress(progress, kPhase, static_cast<int64_t>(i),
                                           static_cast<int64_t>(modules.size())));
    const std::string& module = modules[i];
    if (!has_module(*pair.candidate, module)) continue;  // a tied head
    const io::LinearWeights ours = pair.candidate->linear(module);
    ModuleScore score;
    score.assistant = pair.assistant;
    score.module = module;
    score.format = ours.format;
    score.weight_scale = ours.weight_scale;
    score.input_scale = ours.input_scale;
    score.static_input =
        ours.format == io::WeightFormat::kFp8PerTensor && !weight_only && ours.input_scale > 0;
    const EvalObserver::Input* input =
        pair.observer != nullptr ? pair.observer->find(module) : nullptr;
    if (input != nullptr) score.input = input->magnitudes;
    if (pair.reference != nullptr && has_module(*pair.reference, module)) {
      const io::LinearWeights theirs = pair.reference->linear(module);
      TANDEM_RETURN_IF_ERROR(
          check_same_shape(pair, module, ours.weight.shape, theirs.weight.shape));
      score.reference_format = theirs.format;
      compare_weights(ours, theirs, module == "pre_projection", score);
      if (input != nullptr)
        score.output_error = output_error(context, pair, module, input->kept(), options);
    }
    scores.push_back(std::move(score));
  }
  TANDEM_RETURN_IF_ERROR(report_progress(progress, kPhase, static_cast<int64_t>(modules.size()),
                                         static_cast<int64_t>(modules.size())));
  return scores;
}

std::vector<KvScore> kv_scores(const io::Checkpoint& candidate, const EvalObserver& observer) {
  std::vector<KvScore> scores;
  for (const auto& [layer, seen] : observer.kv()) {
    const io::Checkpoint::KvScales scales = candidate.kv_scales(layer);
    scores.push_back(
        {layer, scales.k_scale, scales.v_scale, seen.k_amax, seen.v_amax, scales.calibrated});
  }
  return scores;
}

}  // namespace tandem::quantize
