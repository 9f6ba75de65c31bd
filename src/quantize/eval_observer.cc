#include "quantize/eval_observer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "quantize/modules.h"

namespace tandem::quantize {
namespace {

// visit(value) for every element; x may have a row stride.
template <typename Visit>
void for_each_value(const core::TensorView& x, const Visit& visit) {
  const int64_t rows = x.shape[0];
  const int64_t cols = rows == 0 ? 0 : x.shape.num_elements() / rows;
  for (int64_t r = 0; r < rows; ++r) {
    if (x.dtype == core::DType::kF32) {
      const auto* row = x.row<float>(r);
      for (int64_t c = 0; c < cols; ++c) visit(row[c]);
    } else {
      const auto* row = x.row<core::BFloat16>(r);
      for (int64_t c = 0; c < cols; ++c) visit(core::to_float(row[c]));
    }
  }
}

float amax_of(const core::TensorView& x) {
  float amax = 0;
  for_each_value(x, [&](float value) { amax = std::max(amax, std::abs(value)); });
  return amax;
}

}  // namespace

void count_magnitude(float value, MagnitudeCounts& counts) {
  const uint32_t bits = std::bit_cast<uint32_t>(value) & 0x7fffffffU;
  const uint32_t exponent = bits >> 23;  // 0: zero or subnormal; 255: NaN or infinity
  if (bits == 0) ++counts.num_zeros;
  if (bits == 0 || exponent == 255) return;
  ++counts.counts[exponent];
  counts.amax = std::max(counts.amax, std::bit_cast<float>(bits));
}

void EvalObserver::on_linear_input(std::string_view module, const core::TensorView& x) {
  if (shared_input(module) != module) return;
  const auto found = inputs_.find(module);
  Input& input = found != inputs_.end() ? found->second : inputs_[std::string(module)];
  for_each_value(x, [&](float value) { count_magnitude(value, input.magnitudes); });
  if (input.rows.empty()) input.rows = core::Buffer(x.dtype, {kRows, x.shape[1]});
  for (int64_t row = 0; row < x.shape[0]; ++row) keep(x, row, input);
}

// Reservoir sampling: every row seen so far is among the kept ones with the same chance.
void EvalObserver::keep(const core::TensorView& x, int64_t row, Input& input) {
  state_ = state_ * 6364136223846793005U + 1442695040888963407U;
  int64_t place = input.num_rows++;
  if (place >= kRows) {
    place = static_cast<int64_t>((state_ >> 33) % static_cast<uint64_t>(input.num_rows));
    if (place >= kRows) return;
  } else {
    input.num_kept = place + 1;
  }
  const core::TensorView from = x.slice_rows(row, row + 1);
  std::memcpy(input.rows.view().slice_rows(place, place + 1).data, from.data,
              static_cast<size_t>(x.shape[1]) * core::dtype_bytes(x.dtype));
}

void EvalObserver::on_kv(int64_t layer, const core::TensorView& k, const core::TensorView& v) {
  Kv& kv = kv_[layer];
  kv.k_amax = std::max(kv.k_amax, amax_of(k));
  kv.v_amax = std::max(kv.v_amax, amax_of(v));
}

const EvalObserver::Input* EvalObserver::find(std::string_view module) const {
  const auto found = inputs_.find(shared_input(module));
  return found == inputs_.end() ? nullptr : &found->second;
}

}  // namespace tandem::quantize
