// Vec on AVX-512 F, BW, DQ, VL. See vec.h.
#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>

#include <cstdint>

#define TANDEM_INLINE inline __attribute__((always_inline))

namespace tandem::ops::cpu::avx512 {

// Tiles of sums (outputs x rows) that leave room for their operands in 32 registers.
inline constexpr int kWideOuts = 8;
inline constexpr int kWideRows = 3;
inline constexpr int kTallOuts = 4;
inline constexpr int kTallRows = 6;

struct Vec {
  __m512 v;
};
struct IVec {
  __m512i v;
};
using Mask = __mmask16;

TANDEM_INLINE __mmask16 first_lanes(int count) {
  return static_cast<__mmask16>((1U << static_cast<unsigned>(count)) - 1U);
}

TANDEM_INLINE Vec zero() {
  return {_mm512_setzero_ps()};
}
TANDEM_INLINE Vec set1(float x) {
  return {_mm512_set1_ps(x)};
}
TANDEM_INLINE IVec set1_int(int32_t x) {
  return {_mm512_set1_epi32(x)};
}
TANDEM_INLINE IVec lane_index() {
  return {_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)};
}
TANDEM_INLINE Vec load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
// The first `count` lanes, 1 to 16; the others are zero and their memory is not touched.
TANDEM_INLINE Vec load(const float* p, int count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), p)};
}
TANDEM_INLINE void store(float* p, Vec a) {
  _mm512_storeu_ps(p, a.v);
}
TANDEM_INLINE void store(float* p, Vec a, int count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), a.v);
}
TANDEM_INLINE Vec add(Vec a, Vec b) {
  return {_mm512_add_ps(a.v, b.v)};
}
TANDEM_INLINE Vec sub(Vec a, Vec b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
TANDEM_INLINE Vec mul(Vec a, Vec b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
TANDEM_INLINE Vec div(Vec a, Vec b) {
  return {_mm512_div_ps(a.v, b.v)};
}
TANDEM_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
// If either is NaN the result is b.
TANDEM_INLINE Vec min(Vec a, Vec b) {
  return {_mm512_min_ps(a.v, b.v)};
}
TANDEM_INLINE Vec max(Vec a, Vec b) {
  return {_mm512_max_ps(a.v, b.v)};
}
TANDEM_INLINE Vec round_nearest(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
TANDEM_INLINE IVec to_int(Vec a) {
  return {_mm512_cvtps_epi32(a.v)};
}
TANDEM_INLINE IVec as_int(Vec a) {
  return {_mm512_castps_si512(a.v)};
}
TANDEM_INLINE Vec as_float(IVec a) {
  return {_mm512_castsi512_ps(a.v)};
}
TANDEM_INLINE IVec add(IVec a, IVec b) {
  return {_mm512_add_epi32(a.v, b.v)};
}
TANDEM_INLINE IVec sub(IVec a, IVec b) {
  return {_mm512_sub_epi32(a.v, b.v)};
}
TANDEM_INLINE IVec and_(IVec a, IVec b) {
  return {_mm512_and_si512(a.v, b.v)};
}
TANDEM_INLINE IVec or_(IVec a, IVec b) {
  return {_mm512_or_si512(a.v, b.v)};
}
template <int kBits>
TANDEM_INLINE IVec shift_left(IVec a) {
  return {_mm512_slli_epi32(a.v, kBits)};
}
template <int kBits>
TANDEM_INLINE IVec shift_right(IVec a) {  // zeros come in
  return {_mm512_srli_epi32(a.v, kBits)};
}

TANDEM_INLINE Mask less(Vec a, Vec b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ);
}
TANDEM_INLINE Mask not_less(Vec a, Vec b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ);
}
TANDEM_INLINE Mask is_nan(Vec a) {
  return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
}
TANDEM_INLINE Mask lanes_between(int begin, int end) {
  return static_cast<Mask>(first_lanes(end) & ~first_lanes(begin));
}
TANDEM_INLINE bool any(Mask mask) {
  return mask != 0;
}
// Lanes of a where the mask is set, of b elsewhere.
TANDEM_INLINE Vec select(Mask mask, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(mask, b.v, a.v)};
}
TANDEM_INLINE IVec select(Mask mask, IVec a, IVec b) {
  return {_mm512_mask_blend_epi32(mask, b.v, a.v)};
}

// Every second lane of a and b together, from lane kOdd on.
template <int kOdd>
TANDEM_INLINE Vec every_second(Vec a, Vec b) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i index = _mm512_add_epi32(even, _mm512_set1_epi32(kOdd));
  return {_mm512_permutex2var_ps(a.v, index, b.v)};
}

// Lanes l + (l+8), then l + (l+4).
TANDEM_INLINE __m128 fold(Vec a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
}

// Sums of eight vectors, in the tree of reduce_add (vec.h). Two vectors, then four, share a
// register; a half that swaps sides is added in the other order, which has the same bits.
TANDEM_INLINE __m512 eights(Vec a, Vec b) {  // lanes l + (l+8) of a, then of b
  const __m512 mixed = _mm512_mask_blend_ps(0xff00, a.v, b.v);
  return _mm512_add_ps(mixed, _mm512_shuffle_f32x4(a.v, b.v, 0x4e));
}
TANDEM_INLINE __m512 fours(__m512 ab, __m512 cd) {  // l + (l+4), of a, b, c, d
  return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}
TANDEM_INLINE __m512 neighbours(__m512 a,
                                __m512 b) {  // 0+1, 2+3 of a, the same of b, in each 128 bits
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}
TANDEM_INLINE __m256 reduce_add8(const Vec (&v)[8]) {
  // Vectors 0, 2, 4, 6 and 1, 3, 5, 7: so the sums of two neighbours end side by side.
  const __m512 even = fours(eights(v[0], v[2]), eights(v[4], v[6]));
  const __m512 odd = fours(eights(v[1], v[3]), eights(v[5], v[7]));
  const __m512 half = neighbours(even, odd);
  const __m512 sums = neighbours(half, half);  // in each 128 bits: even, odd, even, odd
  return _mm512_castps512_ps256(_mm512_castpd_ps(
      _mm512_permutexvar_pd(_mm512_set_epi64(0, 0, 0, 0, 6, 4, 2, 0), _mm512_castps_pd(sums))));
}

}  // namespace tandem::ops::cpu::avx512
#endif
