#include "ops/rope.h"

#include <cmath>

#include "core/bf16.h"
#include "ops/checks.h"
#include "ops/cpu/cpu.h"
#include "ops/parallel.h"
#include "ops/reference/reference.h"

namespace tandem::ops {

// Rounded where transformers' FP32 arithmetic rounds (exponent, power, reciprocal): at a position
// of 100,000 one unit in the last place of a frequency already turns the angle by 0.006.
std::vector<float> rope_inv_freq(int64_t head_dim, double theta, double partial_rotary_factor) {
  const int64_t half = head_dim / 2;
  const auto rotating = static_cast<int64_t>(partial_rotary_factor * static_cast<double>(half));
  std::vector<float> inv_freq(static_cast<size_t>(half), 0.0F);
  for (int64_t i = 0; i < rotating; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const auto power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    inv_freq[static_cast<size_t>(i)] = 1.0F / power;
  }
  return inv_freq;
}

void rope_angles(const Context& context, std::span<const int32_t> positions,
                 std::span<const float> inv_freq, bool round_bf16, const core::TensorView& cos,
                 const core::TensorView& sin) {
  const auto n = static_cast<int64_t>(positions.size());
  const auto half = static_cast<int64_t>(inv_freq.size());
  check_dtype("rope_angles", "cos", cos, core::DType::kF32);
  check_dtype("rope_angles", "sin", sin, core::DType::kF32);
  check_shape("rope_angles", "cos", cos, core::Shape{n, half});
  check_shape("rope_angles", "sin", sin, core::Shape{n, half});
  // One sincos is some 20 ns: eight rows of 128 pairs pay for waking a thread.
  parallel_for(context, n, 1024 / (half + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto position = static_cast<float>(positions[static_cast<size_t>(r)]);
      float* const c = cos.row<float>(r);
      float* const s = sin.row<float>(r);
      for (int64_t i = 0; i < half; ++i) {
        const float angle = position * inv_freq[static_cast<size_t>(i)];
        c[i] = angle == 0.0F ? 1.0F : std::cos(angle);
        s[i] = angle == 0.0F ? 0.0F : std::sin(angle);
        if (!round_bf16) continue;
        c[i] = core::round_to_bf16(c[i]);
        s[i] = core::round_to_bf16(s[i]);
      }
    }
  });
}

void rope(const Context& context, const core::TensorView& cos, const core::TensorView& sin,
          const core::TensorView& x) {
  TANDEM_CHECK_EQ(x.shape.rank(), size_t{3});
  TANDEM_CHECK_EQ(x.shape[2] % 2, 0);
  check_activation("rope", "x", x);
  check_dtype("rope", "cos", cos, core::DType::kF32);
  check_dtype("rope", "sin", sin, core::DType::kF32);
  check_shape("rope", "cos", cos, core::Shape{x.shape[0], x.shape[2] / 2});
  check_shape("rope", "sin", sin, cos.shape);
  if (!cpu::use_reference(context)) return cpu::rope(context, cos, sin, x);
  reference::rope(cos, sin, x);
}

}  // namespace tandem::ops
