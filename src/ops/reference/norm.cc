#include <cmath>

#include "ops/reference/element.h"
#include "ops/reference/reference.h"

namespace tandem::ops::reference {
namespace {

// rms(values) * weight, in place and unrounded.
void normalize(std::vector<float>& values, const core::TensorView& weight, float eps) {
  float squares = 0.0F;
  for (const float value : values) squares += value * value;
  const float mean = squares / static_cast<float>(values.size());
  const float inverse = 1.0F / std::sqrt(mean + eps);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] *= inverse;
    if (weight.data != nullptr) values[i] *= load(weight, 0, static_cast<int64_t>(i));
  }
}

// The weight is one vector: give it one row of [dim].
core::TensorView as_row(const core::TensorView& weight) {
  return core::TensorView(weight.data, weight.dtype, core::Shape{1, weight.shape.num_elements()});
}

}  // namespace

void rms_norm(const core::TensorView& x, const core::TensorView& weight, float eps,
              const core::TensorView& out) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    std::vector<float> values = load_row(x, r);
    normalize(values, as_row(weight), eps);
    for (size_t i = 0; i < values.size(); ++i) store(out, r, static_cast<int64_t>(i), values[i]);
  }
}

void add_rms_norm(const core::TensorView& branch, const core::TensorView& weight, float eps,
                  float scale, const core::TensorView& residual) {
  const core::DType dtype = residual.dtype;
  for (int64_t r = 0; r < residual.rows(); ++r) {
    std::vector<float> values = load_row(branch, r);
    normalize(values, as_row(weight), eps);
    for (size_t c = 0; c < values.size(); ++c) {
      const auto i = static_cast<int64_t>(c);
      const float sum = rounded(dtype, load(residual, r, i) + rounded(dtype, values[c]));
      store(residual, r, i, sum * scale);
    }
  }
}

}  // namespace tandem::ops::reference
