// The pieces of y = x W^T: a tile's sums, its scales, its stores.
#pragma once

#include "ops/cpu/dot_tile.h"
#include "ops/cpu/kernels.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

inline constexpr int64_t kScaleBlock = 128;

// Eight floats as bfloat16, rounded as bf16_bits does.
TANDEM_INLINE __m128i bf16_words8(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
  const __m256i quiet_nan = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, quiet_nan, nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

// Stores the first `count` of finished sums, neighbours of one row.
TANDEM_INLINE void store_outputs(const Rows& y, int64_t row, int64_t out, int64_t count,
                                 __m256 values) {
  const int64_t at = row * y.stride + out;
  if (y.bf16) {
    auto* const to = static_cast<uint16_t*>(y.data) + at;
    const __m128i words = bf16_words8(values);
    if (count == 8)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), words);
    else if (count == 4)
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), words);
    else
      __builtin_memcpy(to, &words, static_cast<size_t>(count) * sizeof(uint16_t));
  } else {
    auto* const to = static_cast<float*>(y.data) + at;
    if (count == 8)
      _mm256_storeu_ps(to, values);
    else if (count == 4)
      _mm_storeu_ps(to, _mm256_castps256_ps128(values));
    else
      __builtin_memcpy(to, &values, static_cast<size_t>(count) * sizeof(float));
  }
}

TANDEM_INLINE __m256 output_scales(const LinearJob& job, int64_t out, int64_t count) {
  if (job.channel_scales == nullptr) return _mm256_set1_ps(job.scale);
  if (count == 8) return _mm256_loadu_ps(job.channel_scales + out);
  float lanes[8] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = job.channel_scales[out + i];
  return _mm256_loadu_ps(lanes);
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

// Scales and stores the sums of a row's outputs from `out` on, up to kOuts.
template <int kOuts>
TANDEM_INLINE void store_scaled(const LinearJob& job, float fold, int64_t out, int64_t out_end,
                                int64_t row, __m256 sums) {
  const int64_t count = out_end - out < kOuts ? out_end - out : kOuts;
  const __m256 scale =
      _mm256_mul_ps(_mm256_set1_ps(job.row_scales[row]), output_scales(job, out, count));
  store_outputs(job.y, row, out, count,
                _mm256_mul_ps(sums, _mm256_mul_ps(scale, _mm256_set1_ps(fold))));
}

// Adds up the lanes, scales and stores the outputs of a tile that exist: eight sums at once, of
// eight, four or two outputs. fold: the power of two that the weight's element type leaves out.
template <int kOuts, int kRows>
TANDEM_INLINE void finish(const LinearJob& job, float fold, int64_t out, int64_t out_end,
                          int64_t row, const Vec (&total)[kOuts][kRows]) {
  constexpr int kTogether = 8 / kOuts;
  unroll<(kRows + kTogether - 1) / kTogether>([&](auto group) TANDEM_LAMBDA {
    constexpr int first = group * kTogether;
    constexpr int rows = kRows - first < kTogether ? kRows - first : kTogether;
    if constexpr (kOuts == 4 && rows == 1) {
      const __m128 sums =
          reduce_add4(total[0][first], total[1][first], total[2][first], total[3][first]);
      store_scaled<kOuts>(job, fold, out, out_end, row + first, _mm256_castps128_ps256(sums));
    } else {
      Vec lanes[8];
      unroll<8>([&](auto i) TANDEM_LAMBDA {
        constexpr int r = first + (i / kOuts < rows ? i / kOuts : 0);
        lanes[i] = total[i % kOuts][r];
      });
      alignas(32) float sums[8];
      const __m256 all = reduce_add8(lanes);
      if constexpr (rows == 1)
        store_scaled<kOuts>(job, fold, out, out_end, row + first, all);
      else {
        _mm256_store_ps(sums, all);
        unroll<rows>([&](auto r) TANDEM_LAMBDA {
          store_scaled<kOuts>(job, fold, out, out_end, row + first + r,
                              _mm256_castps128_ps256(_mm_loadu_ps(sums + r * kOuts)));
        });
      }
    }
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
