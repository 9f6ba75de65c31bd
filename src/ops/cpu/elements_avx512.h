// Vec from and to BF16 and E4M3 in memory, on AVX-512. See vec.h.
#pragma once

#include "ops/cpu/vec_avx512.h"

#if defined(__AVX512F__)
namespace tandem::ops::cpu::avx512 {

TANDEM_INLINE Vec load_bf16(const uint16_t* p) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16))};
}
TANDEM_INLINE Vec load_bf16(const uint16_t* p, int count) {
  const __m256i words = _mm256_maskz_loadu_epi16(first_lanes(count), p);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16))};
}
TANDEM_INLINE void store_words(uint16_t* p, IVec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}
TANDEM_INLINE void store_words(uint16_t* p, IVec a, int count) {
  _mm512_mask_cvtepi32_storeu_epi16(p, first_lanes(count), a.v);
}
TANDEM_INLINE void store_bytes(uint8_t* p, IVec a, int count) {
  _mm512_mask_cvtepi32_storeu_epi8(p, first_lanes(count), a.v);
}
TANDEM_INLINE __m128i load_bytes(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
TANDEM_INLINE __m128i load_bytes(const uint8_t* p, int count) {
  return _mm_maskz_loadu_epi8(first_lanes(count), p);
}
// FP16 words of value * 2^-8: the sign at bit 15, the rest at bits 13..7.
template <bool kKeepNan>
TANDEM_INLINE Vec fp8_words(__m256i half) {
  if constexpr (kKeepNan) {
    const __m256i rest = _mm256_set1_epi16(0x3f80);
    const __mmask16 nan = _mm256_cmpeq_epi16_mask(_mm256_and_si256(half, rest), rest);
    half = _mm256_mask_blend_epi16(nan, half, _mm256_set1_epi16(0x7fff));
  }
  return {_mm512_cvtph_ps(half)};
}
template <bool kKeepNan>
TANDEM_INLINE Vec decode_fp8(__m128i bytes) {
  const __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7);
  return fp8_words<kKeepNan>(
      _mm256_and_si256(wide, _mm256_set1_epi16(static_cast<int16_t>(0xbfff))));
}
// The even or odd ones of 32 bytes.
template <bool kKeepNan, int kOdd>
TANDEM_INLINE Vec decode_fp8_half(__m256i bytes) {
  const __m256i high = kOdd ? bytes : _mm256_slli_epi16(bytes, 8);
  return fp8_words<kKeepNan>(_mm256_and_si256(_mm256_srai_epi16(high, 1),
                                              _mm256_set1_epi16(static_cast<int16_t>(0xbf80))));
}

// 64 bytes at once, which takes fewer operations: FP16 words of the even ones and of the odd ones.
struct Fp8Words {
  __m512i even, odd;
};
template <bool kKeepNan>
struct WideFp8 {
  static constexpr bool kWide = true;
  static TANDEM_INLINE Fp8Words words(const uint8_t* p) {
    const __m512i bytes = _mm512_loadu_si512(p);
    return {half_words(_mm512_slli_epi16(bytes, 8)), half_words(bytes)};
  }
  // The even (0) or odd (1) ones of the first 32 bytes, then of the second (2, 3).
  template <int kPart>
  static TANDEM_INLINE Vec part(const Fp8Words& words) {
    const __m512i half = kPart % 2 == 0 ? words.even : words.odd;
    return {_mm512_cvtph_ps(kPart < 2 ? _mm512_castsi512_si256(half)
                                      : _mm512_extracti64x4_epi64(half, 1))};
  }

 private:
  // Of the high bytes.
  static TANDEM_INLINE __m512i half_words(__m512i high) {
    const __m512i half = _mm512_and_si512(_mm512_srai_epi16(high, 1),
                                          _mm512_set1_epi16(static_cast<int16_t>(0xbf80)));
    if constexpr (!kKeepNan) return half;
    const __m512i rest = _mm512_set1_epi16(0x3f80);
    const __mmask32 nan = _mm512_cmpeq_epi16_mask(_mm512_and_si512(half, rest), rest);
    return _mm512_mask_blend_epi16(nan, half, _mm512_set1_epi16(0x7fff));
  }
};

// The even (0) or odd (1) elements of 32 neighbours: one operation each, where widening takes two.
template <int kOdd>
TANDEM_INLINE Vec half_of_bf16(__m512i words) {
  return {_mm512_castsi512_ps(kOdd ? _mm512_and_si512(words, _mm512_set1_epi32(~0xffff))
                                   : _mm512_slli_epi32(words, 16))};
}
template <int kOdd>
TANDEM_INLINE Vec load_bf16_half(const uint16_t* p) {
  return half_of_bf16<kOdd>(_mm512_loadu_si512(p));
}
template <int kOdd>
TANDEM_INLINE Vec load_bf16_half(const uint16_t* p, int count) {
  const auto mask = static_cast<__mmask32>((uint64_t{1} << count) - 1U);
  return half_of_bf16<kOdd>(_mm512_maskz_loadu_epi16(mask, p));
}
TANDEM_INLINE __m256i load_bytes32(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
TANDEM_INLINE __m256i load_bytes32(const uint8_t* p, int count) {
  return _mm256_maskz_loadu_epi8(static_cast<__mmask32>((uint64_t{1} << count) - 1U), p);
}

}  // namespace tandem::ops::cpu::avx512
#endif
