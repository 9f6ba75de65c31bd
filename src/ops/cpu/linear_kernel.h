// y = x W^T in tiles of outputs and rows. Tiles change what is shared, never a sum.
#pragma once

#include "ops/cpu/dot_tile.h"
#include "ops/cpu/kernels.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

inline constexpr int64_t kScaleBlock = 128;

// Four floats as bfloat16 in the low 64 bits, rounded as bf16_bits does.
TANDEM_INLINE __m128i bf16_words4(__m128 v) {
  const __m128i bits = _mm_castps_si128(v);
  const __m128i high = _mm_srli_epi32(bits, 16);
  const __m128i odd = _mm_and_si128(high, _mm_set1_epi32(1));
  const __m128i bias = _mm_add_epi32(odd, _mm_set1_epi32(0x7fff));
  const __m128i rounded = _mm_srli_epi32(_mm_add_epi32(bits, bias), 16);
  const __m128i quiet_nan = _mm_or_si128(high, _mm_set1_epi32(0x40));
  const __m128i nan = _mm_castps_si128(_mm_cmpunord_ps(v, v));
  const __m128i words = _mm_blendv_epi8(rounded, quiet_nan, nan);
  return _mm_packus_epi32(words, words);
}

// Stores the finished sums of up to four outputs of one row.
TANDEM_INLINE void store_outputs(const Rows& y, int64_t row, int64_t out, int64_t count,
                                 __m128 values) {
  const int64_t at = row * y.stride + out;
  if (y.bf16) {
    auto* const to = static_cast<uint16_t*>(y.data) + at;
    const auto words = static_cast<uint64_t>(_mm_cvtsi128_si64(bf16_words4(values)));
    if (count == 4)
      __builtin_memcpy(to, &words, sizeof(words));
    else
      __builtin_memcpy(to, &words, static_cast<size_t>(count) * sizeof(uint16_t));
  } else {
    auto* const to = static_cast<float*>(y.data) + at;
    if (count == 4)
      _mm_storeu_ps(to, values);
    else
      __builtin_memcpy(to, &values, static_cast<size_t>(count) * sizeof(float));
  }
}

TANDEM_INLINE __m128 output_scales(const LinearJob& job, int64_t out, int64_t count) {
  if (job.channel_scales == nullptr) return _mm_set1_ps(job.scale);
  float lanes[4] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = job.channel_scales[out + i];
  return _mm_loadu_ps(lanes);
}

// One tile: outputs [out, out + kOuts) that exist, rows [row, row + kRows). w[o] are the weight
// rows as E; fold is the power of two that E leaves out.
template <typename E, int kOuts, int kRows>
TANDEM_INLINE void linear_tile(const LinearJob& job, const typename E::Storage* const* w,
                               float fold, int64_t out, int64_t out_end, int64_t row) {
  const int64_t x_stride = padded(job.in);
  const float* const x = job.x + row * x_stride;
  Vec sums[kOuts][kRows];
  fill_zero(sums);
  if (job.block_scales == nullptr) {
    dot_tile<E, kOuts, kRows>(w, x, x_stride, 0, job.in, sums);
  } else {
    // Each block of 128 has its own sum; the scaled sums are added in order.
    Vec total[kOuts][kRows];
    fill_zero(total);
    const float* scale = job.block_scales + out / kScaleBlock * job.block_stride;
    for (int64_t begin = 0; begin < job.in; begin += kScaleBlock, ++scale) {
      const int64_t end = begin + kScaleBlock < job.in ? begin + kScaleBlock : job.in;
      fill_zero(sums);
      dot_tile<E, kOuts, kRows>(w, x, x_stride, begin, end, sums);
      for_tile<kOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA {
        total[o][r] = fma(sums[o][r], set1(*scale), total[o][r]);
      });
    }
    for_tile<kOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA { sums[o][r] = total[o][r]; });
  }
  constexpr int kStep = kOuts < 4 ? kOuts : 4;
  for_tile<kOuts / kStep, kRows>([&](auto quad, auto r) TANDEM_LAMBDA {
    constexpr int o = quad * kStep;
    const int64_t left = out_end - out - o;
    if (left <= 0) return;
    const int64_t count = left < kStep ? left : kStep;
    const __m128 sum =
        reduce_add4(sums[o][r], sums[o + 1][r], sums[o + 2 % kStep][r], sums[o + 3 % kStep][r]);
    const __m128 scale =
        _mm_mul_ps(_mm_set1_ps(job.row_scales[row + r]), output_scales(job, out + o, count));
    store_outputs(job.y, row + r, out + o, count,
                  _mm_mul_ps(sum, _mm_mul_ps(scale, _mm_set1_ps(fold))));
  });
}

// Rows [0, n) for the outputs [out, out + kOuts), in tiles of nearly equal size.
template <typename E, int kOuts>
TANDEM_INLINE void linear_rows(const LinearJob& job, const typename E::Storage* const* w,
                               float fold, int64_t out, int64_t out_end) {
  constexpr int kMaxRows = kOuts == kWideOuts ? kWideRows : kTallRows;
  const int64_t tiles = (job.n + kMaxRows - 1) / kMaxRows;
  int64_t row = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t rows = job.n / tiles + (tile < job.n % tiles ? 1 : 0);
    unroll<kMaxRows>([&](auto i) {
      if (rows == i + 1) linear_tile<E, kOuts, i + 1>(job, w, fold, out, out_end, row);
    });
    row += rows;
  }
}

// Outputs [begin, end) from weight rows `first` + (o - begin) * stride.
template <typename E, int kOuts>
void linear_outputs(const LinearJob& job, const typename E::Storage* first, int64_t stride,
                    float fold, int64_t begin, int64_t end) {
  for (int64_t out = begin; out < end; out += kOuts) {
    // Past the last output a tile repeats it; the repetition is not stored.
    const typename E::Storage* w[kOuts];
    for (int o = 0; o < kOuts; ++o)
      w[o] = first + ((out + o < end ? out + o : end - 1) - begin) * stride;
    linear_rows<E, kOuts>(job, w, fold, out, end);
  }
}

// Many rows: the weights are decoded once into a panel that stays in the L2 cache.
template <typename E>
void linear_panels(const LinearJob& job, int64_t begin, int64_t end, float* panel) {
  const auto* const weight = static_cast<const typename E::Storage*>(job.weight);
  const int64_t stride = padded(job.in);
  for (int64_t out = begin; out < end; out += kPanelOuts) {
    const int64_t stop = out + kPanelOuts < end ? out + kPanelOuts : end;
    for (int64_t o = out; o < stop; ++o) {
      const typename E::Storage* const from = weight + o * job.weight_stride;
      float* const to = panel + (o - out) * stride;
      int64_t i = 0;
      for (; i + kLanes <= job.in; i += kLanes) store(to + i, E::load(from + i));
      if (i < job.in) store(to + i, E::load(from + i, static_cast<int>(job.in - i)));
    }
    linear_outputs<F32Element, kTallOuts>(job, panel, stride, E::kFold, out, stop);
  }
}

template <typename E>
void linear_element(const LinearJob& job, int64_t begin, int64_t end, float* panel) {
  const auto* const weight = static_cast<const typename E::Storage*>(job.weight);
  const auto* const first = weight + begin * job.weight_stride;
  if (job.n > kMaxDirectRows)
    linear_panels<E>(job, begin, end, panel);
  else if (job.n <= kWideRows)
    linear_outputs<E, kWideOuts>(job, first, job.weight_stride, E::kFold, begin, end);
  else
    linear_outputs<E, kTallOuts>(job, first, job.weight_stride, E::kFold, begin, end);
}

inline void linear(const LinearJob& job, int64_t begin, int64_t end, float* panel) {
  switch (job.element) {
    case Element::kF32:
      return linear_element<F32Element>(job, begin, end, panel);
    case Element::kBF16:
      return linear_element<Bf16Element>(job, begin, end, panel);
    case Element::kFp8:
      return linear_element<Fp8Element>(job, begin, end, panel);
  }
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
