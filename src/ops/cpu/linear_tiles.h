// The pieces of y = x W^T: a tile's sums, its scales, its stores.
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

// total[o][r] += w[o] . x[r] over [0, length), whose first element is number `begin` of the row; w
// and x point there. The FP8 block format sums each block of 128 alone and adds the scaled sums in
// order.
template <typename E, int kOuts, int kRows, int kAhead>
TANDEM_INLINE void accumulate(const LinearJob& job, const typename E::Storage* const* w,
                              const float* x, int64_t out, int64_t begin, int64_t length,
                              const Ahead<kAhead>& ahead, Vec (&total)[kOuts][kRows]) {
  const bool blocks = job.block_scales != nullptr;
  const int64_t step = blocks ? kScaleBlock : length;
  const float* scale =
      blocks ? job.block_scales + out / kScaleBlock * job.block_stride + begin / kScaleBlock
             : nullptr;
  Vec sums[kOuts][kRows];
  for_tile<kOuts, kRows>([&](auto o, auto r)
                             TANDEM_LAMBDA { sums[o][r] = blocks ? zero() : total[o][r]; });
  for (int64_t i = 0; i < length; i += step) {
    dot_tile<E, kOuts, kRows>(w, x, padded(job.in), i, i + step < length ? i + step : length, ahead,
                              sums);
    if (!blocks) break;
    for_tile<kOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA {
      total[o][r] = fma(sums[o][r], set1(*scale), total[o][r]);
      sums[o][r] = zero();
    });
    ++scale;
  }
  if (blocks) return;
  for_tile<kOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA { total[o][r] = sums[o][r]; });
}

// Adds up the lanes, scales and stores the outputs of a tile that exist. fold: the power of two
// that the weight's element type leaves out.
template <int kOuts, int kRows>
TANDEM_INLINE void finish(const LinearJob& job, float fold, int64_t out, int64_t out_end,
                          int64_t row, const Vec (&total)[kOuts][kRows]) {
  constexpr int kStep = kOuts < 4 ? kOuts : 4;
  for_tile<kOuts / kStep, kRows>([&](auto quad, auto r) TANDEM_LAMBDA {
    constexpr int o = quad * kStep;
    const int64_t left = out_end - out - o;
    if (left <= 0) return;
    const int64_t count = left < kStep ? left : kStep;
    const __m128 sum =
        reduce_add4(total[o][r], total[o + 1][r], total[o + 2 % kStep][r], total[o + 3 % kStep][r]);
    const __m128 scale =
        _mm_mul_ps(_mm_set1_ps(job.row_scales[row + r]), output_scales(job, out + o, count));
    store_outputs(job.y, row + r, out + o, count,
                  _mm_mul_ps(sum, _mm_mul_ps(scale, _mm_set1_ps(fold))));
  });
}

// Calls body(row, constant number of rows) for all rows, in tiles of nearly equal size.
template <int kMaxRows, typename Body>
TANDEM_INLINE void for_row_tiles(int64_t n, const Body& body) {
  const int64_t tiles = (n + kMaxRows - 1) / kMaxRows;
  int64_t row = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t rows = n / tiles + (tile < n % tiles ? 1 : 0);
    unroll<kMaxRows>([&](auto i) {
      if (rows == i + 1) body(row, std::integral_constant<int, i + 1>{});
    });
    row += rows;
  }
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
