// Row-wise and element-wise kernels. Tails are masked, so a value's bits do not depend on where in
// a row it lies.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/vec_math.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

// Calls body(column, count) for steps of 16 lanes; the last may be shorter.
template <typename Body>
TANDEM_INLINE void for_lanes(int64_t begin, int64_t end, const Body& body) {
  for (int64_t i = begin; i < end; i += kLanes)
    body(i, static_cast<int>(end - i < kLanes ? end - i : kLanes));
}

TANDEM_INLINE Vec load_lanes(const Rows& rows, int64_t row, int64_t i, int count) {
  const int64_t at = row * rows.stride + i;
  if (rows.bf16) {
    const auto* const p = static_cast<const uint16_t*>(rows.data) + at;
    return count == kLanes ? load_bf16(p) : load_bf16(p, count);
  }
  const auto* const p = static_cast<const float*>(rows.data) + at;
  return count == kLanes ? load(p) : load(p, count);
}

TANDEM_INLINE void store_lanes(const Rows& rows, int64_t row, int64_t i, int count, Vec value) {
  const int64_t at = row * rows.stride + i;
  if (rows.bf16) {
    auto* const p = static_cast<uint16_t*>(rows.data) + at;
    if (count == kLanes)
      store_words(p, bf16_bits(value));
    else
      store_words(p, bf16_bits(value), count);
  } else {
    auto* const p = static_cast<float*>(rows.data) + at;
    if (count == kLanes)
      store(p, value);
    else
      store(p, value, count);
  }
}

TANDEM_INLINE Vec rounded(const Rows& rows, Vec value) {
  return rows.bf16 ? round_bf16(value) : value;
}

TANDEM_INLINE float reduce_max(Vec v) {
  float lanes[kLanes];
  store(lanes, v);
  float largest = lanes[0];
  for (int i = 1; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

inline void prepare_rows(const Rows& x, int64_t cols, int halves, Quantize quantize,
                         float input_scale, int64_t begin, int64_t end, float* out,
                         float* row_scales) {
  const Vec magnitude_bits = as_float(set1_int(INT32_MAX));
  for (int64_t r = begin; r < end; ++r) {
    float* const to = out + r * padded(cols);
    float scale = quantize == Quantize::kNone ? 1.0F : input_scale;
    if (quantize == Quantize::kPerToken) {
      Vec largest = zero();
      for_lanes(0, cols, [&](int64_t i, int count) TANDEM_LAMBDA {
        const IVec bits = and_(as_int(load_lanes(x, r, i, count)), as_int(magnitude_bits));
        const Vec value = as_float(bits);
        largest = select(less(largest, value), value, largest);  // a NaN does not take part
      });
      const float most = reduce_max(largest);
      scale = most == 0.0F ? 1.0F : most / 448.0F;
    }
    row_scales[r] = scale;
    const auto prepared = [&](int64_t i) TANDEM_LAMBDA {
      if (i >= cols) return zero();
      const Vec value =
          load_lanes(x, r, i, static_cast<int>(cols - i < kLanes ? cols - i : kLanes));
      return quantize == Quantize::kNone ? value : round_e4m3(div(value, set1(scale)));
    };
    for (int64_t i = 0; i < cols; i += 2 * kLanes)
      store_for_dot(to + i, halves, prepared(i), prepared(i + kLanes));
  }
}

// 1 / sqrt(mean(x^2) + eps)
TANDEM_INLINE float inverse_rms(const Rows& x, int64_t row, int64_t dim, float eps) {
  Vec squares = zero();
  for_lanes(0, dim, [&](int64_t i, int count) TANDEM_LAMBDA {
    const Vec value = load_lanes(x, row, i, count);
    squares = fma(value, value, squares);
  });
  const float mean = reduce_add(squares) / static_cast<float>(dim);
  return 1.0F / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps)));
}

TANDEM_INLINE Vec normalized(const Rows& x, int64_t row, const Rows& weight, float inverse,
                             int64_t i, int count) {
  const Vec value = mul(load_lanes(x, row, i, count), set1(inverse));
  return weight.data == nullptr ? value : mul(value, load_lanes(weight, 0, i, count));
}

inline void rms_norm(const Rows& x, const Rows& weight, float eps, int64_t dim, int64_t begin,
                     int64_t end, const Rows& out) {
  for (int64_t r = begin; r < end; ++r) {
    const float inverse = inverse_rms(x, r, dim, eps);
    for_lanes(0, dim, [&](int64_t i, int count) TANDEM_LAMBDA {
      store_lanes(out, r, i, count, normalized(x, r, weight, inverse, i, count));
    });
  }
}

inline void add_rms_norm(const Rows& branch, const Rows& weight, float eps, float scale,
                         int64_t dim, int64_t begin, int64_t end, const Rows& residual) {
  for (int64_t r = begin; r < end; ++r) {
    const float inverse = inverse_rms(branch, r, dim, eps);
    for_lanes(0, dim, [&](int64_t i, int count) TANDEM_LAMBDA {
      const Vec norm = rounded(residual, normalized(branch, r, weight, inverse, i, count));
      const Vec sum = rounded(residual, add(load_lanes(residual, r, i, count), norm));
      store_lanes(residual, r, i, count, mul(sum, set1(scale)));
    });
  }
}

inline void gelu_mul(const Rows& gate, const Rows& up, const Rows& out, int64_t row, int64_t begin,
                     int64_t end) {
  for_lanes(begin, end, [&](int64_t i, int count) TANDEM_LAMBDA {
    const Vec gelu = rounded(out, gelu_tanh(load_lanes(gate, row, i, count)));
    store_lanes(out, row, i, count, mul(gelu, load_lanes(up, row, i, count)));
  });
}

inline void softcap(float cap, float* row, int64_t begin, int64_t end) {
  const Rows logits{row, 0, false};
  for_lanes(begin, end, [&](int64_t i, int count) TANDEM_LAMBDA {
    const Vec ratio = div(load_lanes(logits, 0, i, count), set1(cap));
    store_lanes(logits, 0, i, count, mul(set1(cap), tanh(ratio)));
  });
}

inline void copy_row(const Rows& from, int64_t from_row, float scale, const Rows& to,
                     int64_t to_row, int64_t cols) {
  for_lanes(0, cols, [&](int64_t i, int count) TANDEM_LAMBDA {
    store_lanes(to, to_row, i, count, mul(load_lanes(from, from_row, i, count), set1(scale)));
  });
}

// Two products and one sum, each rounded: the bits of the reference.
inline void rope(const float* cos, const float* sin, const Rows& x, int64_t row, int64_t heads,
                 int64_t dim) {
  const int64_t half = dim / 2;
  for (int64_t head = 0; head < heads; ++head) {
    const int64_t at = head * dim;
    for_lanes(0, half, [&](int64_t i, int count) TANDEM_LAMBDA {
      const Vec low = load_lanes(x, row, at + i, count);
      const Vec high = load_lanes(x, row, at + half + i, count);
      const Vec c = count == kLanes ? load(cos + i) : load(cos + i, count);
      const Vec s = count == kLanes ? load(sin + i) : load(sin + i, count);
      store_lanes(x, row, at + i, count, sub(mul(low, c), mul(high, s)));
      store_lanes(x, row, at + half + i, count, add(mul(high, c), mul(low, s)));
    });
  }
}

inline void store_fp8(const Rows& from, int64_t row, float scale, uint8_t* to, int64_t cols) {
  for_lanes(0, cols, [&](int64_t i, int count) TANDEM_LAMBDA {
    const Vec value = div(load_lanes(from, row, i, count), set1(scale));
    store_bytes(to + i, e4m3_bits(round_e4m3(value)), count);
  });
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
