// Vec on AVX2, FMA and F16C: two registers of eight lanes. See vec.h.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>

#include <cstdint>

#define TANDEM_INLINE inline __attribute__((always_inline))

namespace tandem::ops::cpu::avx2 {

// Tiles of sums (outputs x rows) that leave room for their operands in 16 registers, two per Vec.
inline constexpr int kWideOuts = 4;
inline constexpr int kWideRows = 1;
inline constexpr int kTallOuts = 2;
inline constexpr int kTallRows = 2;

struct Vec {
  __m256 lo, hi;
};
struct IVec {
  __m256i lo, hi;
};
struct Mask {
  __m256 lo, hi;
};

TANDEM_INLINE IVec lane_index() {
  return {_mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), _mm256_set_epi32(15, 14, 13, 12, 11, 10, 9, 8)};
}
TANDEM_INLINE IVec set1_int(int32_t x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
// All bits set in the first `count` lanes.
TANDEM_INLINE IVec first_lanes(int count) {
  const IVec index = lane_index();
  const __m256i limit = _mm256_set1_epi32(count);
  return {_mm256_cmpgt_epi32(limit, index.lo), _mm256_cmpgt_epi32(limit, index.hi)};
}

TANDEM_INLINE Vec zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
TANDEM_INLINE Vec set1(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
TANDEM_INLINE Vec load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
// The first `count` lanes, 1 to 16; the others are zero and their memory is not touched.
TANDEM_INLINE Vec load(const float* p, int count) {
  const IVec mask = first_lanes(count);
  return {_mm256_maskload_ps(p, mask.lo), _mm256_maskload_ps(p + 8, mask.hi)};
}
TANDEM_INLINE void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
TANDEM_INLINE void store(float* p, Vec a, int count) {
  const IVec mask = first_lanes(count);
  _mm256_maskstore_ps(p, mask.lo, a.lo);
  _mm256_maskstore_ps(p + 8, mask.hi, a.hi);
}
#define TANDEM_BOTH(name, op)                                  \
  TANDEM_INLINE Vec name(Vec a, Vec b) {                       \
    return {_mm256_##op(a.lo, b.lo), _mm256_##op(a.hi, b.hi)}; \
  }
#define TANDEM_BOTH_INT(name, op)                              \
  TANDEM_INLINE IVec name(IVec a, IVec b) {                    \
    return {_mm256_##op(a.lo, b.lo), _mm256_##op(a.hi, b.hi)}; \
  }
TANDEM_BOTH(add, add_ps)
TANDEM_BOTH(sub, sub_ps)
TANDEM_BOTH(mul, mul_ps)
TANDEM_BOTH(div, div_ps)
// If either is NaN the result is b.
TANDEM_BOTH(min, min_ps)
TANDEM_BOTH(max, max_ps)
TANDEM_BOTH_INT(add, add_epi32)
TANDEM_BOTH_INT(sub, sub_epi32)
TANDEM_BOTH_INT(and_, and_si256)
TANDEM_BOTH_INT(or_, or_si256)
#undef TANDEM_BOTH
#undef TANDEM_BOTH_INT

TANDEM_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
TANDEM_INLINE Vec round_nearest(Vec a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}
TANDEM_INLINE IVec to_int(Vec a) {
  return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
TANDEM_INLINE IVec as_int(Vec a) {
  return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)};
}
TANDEM_INLINE Vec as_float(IVec a) {
  return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)};
}
template <int kBits>
TANDEM_INLINE IVec shift_left(IVec a) {
  return {_mm256_slli_epi32(a.lo, kBits), _mm256_slli_epi32(a.hi, kBits)};
}
template <int kBits>
TANDEM_INLINE IVec shift_right(IVec a) {  // zeros come in
  return {_mm256_srli_epi32(a.lo, kBits), _mm256_srli_epi32(a.hi, kBits)};
}

template <int kPredicate>
TANDEM_INLINE Mask compare(Vec a, Vec b) {
  return {_mm256_cmp_ps(a.lo, b.lo, kPredicate), _mm256_cmp_ps(a.hi, b.hi, kPredicate)};
}
TANDEM_INLINE Mask less(Vec a, Vec b) {
  return compare<_CMP_LT_OQ>(a, b);
}
TANDEM_INLINE Mask not_less(Vec a, Vec b) {
  return compare<_CMP_NLT_UQ>(a, b);
}
TANDEM_INLINE Mask is_nan(Vec a) {
  return compare<_CMP_UNORD_Q>(a, a);
}
TANDEM_INLINE Mask lanes_between(int begin, int end) {
  const Vec before = as_float(first_lanes(begin));
  const Vec all = as_float(first_lanes(end));
  return {_mm256_andnot_ps(before.lo, all.lo), _mm256_andnot_ps(before.hi, all.hi)};
}
TANDEM_INLINE bool any(Mask mask) {
  return _mm256_movemask_ps(_mm256_or_ps(mask.lo, mask.hi)) != 0;
}
// Lanes of a where the mask is set, of b elsewhere.
TANDEM_INLINE Vec select(Mask mask, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.lo, a.lo, mask.lo), _mm256_blendv_ps(b.hi, a.hi, mask.hi)};
}
TANDEM_INLINE IVec select(Mask mask, IVec a, IVec b) {
  return as_int(select(mask, as_float(a), as_float(b)));
}

// Every second lane of a and b together, from lane kOdd on.
template <int kOdd>
TANDEM_INLINE __m256 every_second(__m256 a, __m256 b) {
  const __m256 mixed = _mm256_shuffle_ps(a, b, kOdd ? 0xdd : 0x88);  // pairs of a, of b, of a, of b
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}
template <int kOdd>
TANDEM_INLINE Vec every_second(Vec a, Vec b) {
  return {every_second<kOdd>(a.lo, a.hi), every_second<kOdd>(b.lo, b.hi)};
}

// Lanes l + (l+8), then l + (l+4).
TANDEM_INLINE __m128 fold(Vec a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}

}  // namespace tandem::ops::cpu::avx2
#endif
