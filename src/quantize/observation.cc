#include "quantize/observation.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/bf16.h"
#include "quantize/modules.h"
#include "quantize/scales.h"

namespace tandem::quantize {
namespace {

using core::BFloat16;

float as_float(float value) {
  return value;
}
float as_float(BFloat16 value) {
  return core::to_float(value);
}
// FP32 activations are counted at the BF16 magnitude below them.
size_t index_of(float value) {
  return std::bit_cast<uint32_t>(value) >> 16 & 0x7fffU;
}
size_t index_of(BFloat16 value) {
  return magnitude_index(value);
}

template <typename T>
float row_amax(const T* row, int64_t count) {
  float amax = 0;
  // A NaN makes the comparison false: it is found by the finite check of the sum.
  for (int64_t i = 0; i < count; ++i) amax = std::max(amax, std::abs(as_float(row[i])));
  return amax;
}

template <typename T>
void observe_row(const T* row, int64_t count, InputObservation& input) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double value = as_float(row[i]);
    input.square_sums[static_cast<size_t>(i)] += value * value;
    sum += value * value;
  }
  if (!std::isfinite(sum)) {
    for (int64_t i = 0; i < count && input.bad_channel < 0; ++i)
      if (!std::isfinite(as_float(row[i]))) input.bad_channel = i;
    return;
  }
  input.amax = std::max(input.amax, row_amax(row, count));
  for (int64_t i = 0; i < count; ++i) ++input.magnitudes[index_of(row[i])];
  if (input.channel_weights.empty()) return;
  for (int64_t i = 0; i < count; ++i)
    input.weighted_magnitudes[index_of(row[i])] += input.channel_weights[static_cast<size_t>(i)];
}

template <typename T>
void observe_rows(const core::TensorView& x, InputObservation& input) {
  for (int64_t r = 0; r < x.rows(); ++r) observe_row(x.row<T>(r), x.cols(), input);
}

float view_amax(const core::TensorView& view, bool& finite) {
  float amax = 0;
  for (int64_t r = 0; r < view.rows(); ++r)
    for (int64_t c = 0; c < view.cols(); ++c) {
      const float value = view.dtype == core::DType::kBF16 ? as_float(view.row<BFloat16>(r)[c])
                                                           : view.row<float>(r)[c];
      finite = finite && std::isfinite(value);
      amax = std::max(amax, std::abs(value));
    }
  return amax;
}

}  // namespace

std::vector<double> InputObservation::mean_squares() const {
  std::vector<double> means = square_sums;
  for (double& mean : means) mean /= static_cast<double>(std::max<int64_t>(1, num_rows));
  return means;
}

void CalibrationObserver::set_channel_weights(const std::string& module,
                                              std::vector<double> weights) {
  InputObservation& input = inputs_[shared_input(module)];
  TANDEM_CHECK_EQ(input.num_rows, 0);
  input.channel_weights = std::move(weights);
  input.weighted_magnitudes.assign(kNumMagnitudes, 0);
}

void CalibrationObserver::on_linear_input(std::string_view module, const core::TensorView& x) {
  // q, k, v (and gate, up) report the same rows: the first of them stands for all.
  if (shared_input(module) != module) return;
  const auto found = inputs_.find(module);
  InputObservation& input = found != inputs_.end() ? found->second : inputs_[std::string(module)];
  if (input.num_rows == 0) {
    input.magnitudes.assign(kNumMagnitudes, 0);
    input.square_sums.assign(static_cast<size_t>(x.cols()), 0);
  }
  input.num_rows += x.rows();
  if (x.dtype == core::DType::kBF16)
    observe_rows<BFloat16>(x, input);
  else
    observe_rows<float>(x, input);
  any_bad_ = any_bad_ || input.bad_channel >= 0;
}

void CalibrationObserver::on_kv(int64_t layer, const core::TensorView& k,
                                const core::TensorView& v) {
  if (!with_kv_) return;
  KvObservation& kv = kv_[layer];
  kv.num_rows += k.rows();
  kv.k_amax = std::max(kv.k_amax, view_amax(k, kv.finite));
  kv.v_amax = std::max(kv.v_amax, view_amax(v, kv.finite));
  any_bad_ = any_bad_ || !kv.finite;
}

const InputObservation* CalibrationObserver::find(std::string_view module) const {
  const auto found = inputs_.find(shared_input(module));
  return found == inputs_.end() || found->second.num_rows == 0 ? nullptr : &found->second;
}

const KvObservation* CalibrationObserver::find_kv(int64_t layer) const {
  const auto found = kv_.find(layer);
  return found == kv_.end() ? nullptr : &found->second;
}

base::Status CalibrationObserver::check_finite() const {
  if (!any_bad_) return {};
  for (const auto& [module, input] : inputs_)
    if (input.bad_channel >= 0)
      return base::invalid(
          "{}: {}: expected finite activations while calibrating, got NaN or infinity in channel "
          "{} of its input; the checkpoint is broken, or was converted with overflow",
          name_, module, input.bad_channel);
  for (const auto& [layer, kv] : kv_)
    if (!kv.finite)
      return base::invalid(
          "{}: layers.{}.self_attn: expected finite keys and values while calibrating, got NaN or "
          "infinity",
          name_, layer);
  return {};
}

}  // namespace tandem::quantize
