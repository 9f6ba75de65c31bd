// 64 E4M3 bytes as BF16, exactly but for a factor of 2^-8 (Fp8Element::kFold takes it up): with it
// the exponents' difference has no carry into the mantissa. A subnormal byte, or zero, is looked
// up: tiles take a BF16 of exponent zero for zero.
#pragma once

#include "ops/cpu/vec.h"

#if defined(__AVX512F__)
namespace tandem::ops::cpu::avx512 {

// The elements of two products: those whose number among the 64 has bit 3 clear, and the others
// (tiles.h).
struct Widened {
  __m512i first, second;
};

// 32 bytes, with AVX-512 BW.
TANDEM_INLINE __m512i widen32(__m256i bytes) {
  // m * 2^-17 for m = 0 to 7. The index is the low five bits: the three of m, two of the exponent.
  const __m512i subnormals = _mm512_inserti32x4(
      _mm512_setzero_si512(),
      _mm_set_epi16(0x3860, 0x3840, 0x3820, 0x3800, 0x37c0, 0x3780, 0x3700, 0), 0);
  const __m512i wide = _mm512_cvtepi8_epi16(bytes);
  const __m512i shifted = _mm512_slli_epi16(wide, 4);
  const __m512i normal = _mm512_or_si512(_mm512_and_si512(shifted, _mm512_set1_epi16(0x07f0)),
                                         _mm512_set1_epi16(0x3800));
  const __mmask32 small = _mm512_testn_epi16_mask(wide, _mm512_set1_epi16(0x78));
  const __m512i magnitude = _mm512_mask_permutexvar_epi16(normal, small, wide, subnormals);
  constexpr int kFirstAndThirdOrSecond = 0xec;
  return _mm512_ternarylogic_epi32(
      shifted, magnitude, _mm512_set1_epi16(static_cast<int16_t>(0x8000)), kFirstAndThirdOrSecond);
}
TANDEM_INLINE Widened widen_by_words(__m512i bytes) {
  const __m512i eights = _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 3, 1, 6, 4, 2, 0), bytes);
  return {widen32(_mm512_castsi512_si256(eights)), widen32(_mm512_extracti64x4_epi64(eights, 1))};
}

#if defined(__GFNI__) && defined(__AVX512VBMI__)
// The same in half the operations: upper and lower bytes of all 64 apart, then side by side.
TANDEM_INLINE Widened widen_by_bytes(__m512i bytes) {
  // Matrices over bits, a row for each bit of the result from the highest on. Upper byte: 0x38 and
  // the upper three bits of the exponent; lower byte: its last bit and the mantissa.
  const __m512i to_upper = _mm512_set1_epi64(0x1020'4000'0000'0000);
  const __m512i to_lower = _mm512_set1_epi64(0x0102'0408);
  const __m512i upper_subnormals = _mm512_set1_epi64(0x3838'3838'3737'3700);
  const __m512i lower_subnormals = _mm512_set1_epi64(static_cast<int64_t>(0x6040'2000'c080'0000U));
  __m512i upper = _mm512_gf2p8affine_epi64_epi8(bytes, to_upper, 0x38);
  __m512i lower = _mm512_gf2p8affine_epi64_epi8(bytes, to_lower, 0);
  const __mmask64 small = _mm512_testn_epi8_mask(bytes, _mm512_set1_epi8(0x78));
  upper = _mm512_mask_permutexvar_epi8(upper, small, bytes, upper_subnormals);
  lower = _mm512_mask_permutexvar_epi8(lower, small, bytes, lower_subnormals);
  constexpr int kFirstOrSecondAndThird = 0xf8;
  upper = _mm512_ternarylogic_epi32(upper, bytes, _mm512_set1_epi8(static_cast<char>(0x80)),
                                    kFirstOrSecondAndThird);
  return {_mm512_unpacklo_epi8(lower, upper), _mm512_unpackhi_epi8(lower, upper)};
}
#endif

}  // namespace tandem::ops::cpu::avx512
#endif
