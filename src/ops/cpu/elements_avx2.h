// Vec from and to BF16 and E4M3 in memory, on AVX2. See vec.h.
#pragma once

#include "ops/cpu/vec_avx2.h"

#if defined(__AVX2__)
namespace tandem::ops::cpu::avx2 {

TANDEM_INLINE __m256 widen_bf16(__m128i words) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}
TANDEM_INLINE Vec load_bf16(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {widen_bf16(_mm_loadu_si128(q)), widen_bf16(_mm_loadu_si128(q + 1))};
}
TANDEM_INLINE Vec load_bf16(const uint16_t* p, int count) {
  uint16_t words[16] = {};
  for (int i = 0; i < count; ++i) words[i] = p[i];
  return load_bf16(words);
}
TANDEM_INLINE void store_words(uint16_t* p, IVec a) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  const __m256i packed =
      _mm256_packus_epi32(_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
TANDEM_INLINE void store_words(uint16_t* p, IVec a, int count) {
  uint16_t words[16];
  store_words(words, a);
  for (int i = 0; i < count; ++i) p[i] = words[i];
}
TANDEM_INLINE void store_bytes(uint8_t* p, IVec a, int count) {
  uint16_t words[16];
  store_words(words, a);
  for (int i = 0; i < count; ++i) p[i] = static_cast<uint8_t>(words[i]);
}
TANDEM_INLINE __m128i load_bytes(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
TANDEM_INLINE __m128i load_bytes(const uint8_t* p, int count) {
  uint8_t bytes[16] = {};
  for (int i = 0; i < count; ++i) bytes[i] = p[i];
  return load_bytes(bytes);
}
// FP16 words of value * 2^-8: the sign at bit 15, the rest at bits 13..7.
template <bool kKeepNan>
TANDEM_INLINE Vec fp8_words(__m256i half) {
  if constexpr (kKeepNan) {
    const __m256i rest = _mm256_set1_epi16(0x3f80);
    const __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(half, rest), rest);
    half = _mm256_or_si256(half, _mm256_and_si256(nan, _mm256_set1_epi16(0x7fff)));
  }
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
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

// Sixteen registers do not gain from more bytes at once.
template <bool kKeepNan>
struct WideFp8 {
  static constexpr bool kWide = false;
};

// The even (0) or odd (1) elements of 32 neighbours: one operation each, where widening takes two.
template <int kOdd>
TANDEM_INLINE __m256 half_of_bf16(__m256i words) {
  return _mm256_castsi256_ps(kOdd ? _mm256_and_si256(words, _mm256_set1_epi32(~0xffff))
                                  : _mm256_slli_epi32(words, 16));
}
template <int kOdd>
TANDEM_INLINE Vec load_bf16_half(const uint16_t* p) {
  const auto* const q = reinterpret_cast<const __m256i*>(p);
  return {half_of_bf16<kOdd>(_mm256_loadu_si256(q)), half_of_bf16<kOdd>(_mm256_loadu_si256(q + 1))};
}
template <int kOdd>
TANDEM_INLINE Vec load_bf16_half(const uint16_t* p, int count) {
  uint16_t words[32] = {};
  for (int i = 0; i < count; ++i) words[i] = p[i];
  return load_bf16_half<kOdd>(words);
}
TANDEM_INLINE __m256i load_bytes32(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
TANDEM_INLINE __m256i load_bytes32(const uint8_t* p, int count) {
  uint8_t bytes[32] = {};
  for (int i = 0; i < count; ++i) bytes[i] = p[i];
  return load_bytes32(bytes);
}

}  // namespace tandem::ops::cpu::avx2
#endif
