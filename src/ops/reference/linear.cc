#include <algorithm>
#include <cmath>

#include "ops/parallel.h"
#include "ops/reference/element.h"
#include "ops/reference/reference.h"

namespace tandem::ops::reference {
namespace {

constexpr int64_t kScaleBlock = 128;

struct Row {
  std::vector<float> values;  // [in], E4M3 values if quantized
  float scale = 1.0F;         // value = values * scale
};

Row quantized_row(const core::TensorView& x, int64_t row, const LinearWeight& weight) {
  Row result{load_row(x, row), 1.0F};
  if (weight.activation == ActivationQuantization::kNone) return result;
  result.scale = weight.input_scale;
  if (weight.activation == ActivationQuantization::kPerToken) {
    float largest = 0.0F;
    for (const float value : result.values) largest = std::max(largest, std::fabs(value));
    // A row of zeros has no scale of its own; any scale gives zeros.
    result.scale = largest == 0.0F ? 1.0F : largest / core::kE4M3Max;
  }
  for (float& value : result.values)
    value = core::e4m3_to_float(core::float_to_e4m3(value / result.scale));
  return result;
}

// Scale of one element of the weight; 1 for the formats without.
float weight_scale(const LinearWeight& weight, int64_t out, int64_t in) {
  switch (weight.format) {
    case LinearFormat::kBF16:
    case LinearFormat::kF32:
      return 1.0F;
    case LinearFormat::kFp8Tensor:
      return weight.weight_scale;
    case LinearFormat::kFp8Channel:
      return static_cast<const float*>(weight.weight_scales.data)[out];
    case LinearFormat::kFp8Block:
      return load(weight.weight_scales, out / kScaleBlock, in / kScaleBlock);
  }
  return 1.0F;
}

float dot(const std::vector<float>& a, const std::vector<float>& b, int64_t begin, int64_t end) {
  float sum = 0.0F;
  for (int64_t i = begin; i < end; ++i)
    sum += a[static_cast<size_t>(i)] * b[static_cast<size_t>(i)];
  return sum;
}

}  // namespace

void linear(const Context& context, const core::TensorView& x, const LinearWeight& weight,
            const core::TensorView& output) {
  const int64_t in = weight.in_features();
  std::vector<Row> rows;
  for (int64_t r = 0; r < x.rows(); ++r) rows.push_back(quantized_row(x, r, weight));
  parallel_for(context, weight.out_features(), 8, [&](int64_t begin, int64_t end) {
    for (int64_t out = begin; out < end; ++out) {
      const std::vector<float> w = load_row(weight.weight, out);
      for (size_t r = 0; r < rows.size(); ++r) {
        float y = 0.0F;
        if (weight.format == LinearFormat::kFp8Block) {
          for (int64_t i = 0; i < in; i += kScaleBlock)
            y += dot(w, rows[r].values, i, std::min(in, i + kScaleBlock)) *
                 weight_scale(weight, out, i);
          y *= rows[r].scale;
        } else {
          y = dot(w, rows[r].values, 0, in) * (rows[r].scale * weight_scale(weight, out, 0));
        }
        store(output, static_cast<int64_t>(r), out, y);
      }
    }
  });
}

}  // namespace tandem::ops::reference
