// Sixteen float lanes, as one AVX-512 register or two AVX2 registers. Every operation has the same
// bits on both, so a kernel written over Vec does too. Only files compiled for an instruction set
// (*_avx2.cc, *_avx512.cc) may include this; they include no header with inline functions that
// other files use, or the linker might pick the copy that not every CPU can run.
#pragma once

#if defined(__AVX512F__)
#define TANDEM_ISA avx512
#include "ops/cpu/elements_avx512.h"
#elif defined(__AVX2__)
#define TANDEM_ISA avx2
#include "ops/cpu/elements_avx2.h"
#endif

#if defined(TANDEM_ISA)
#include <utility>

#define TANDEM_LAMBDA __attribute__((always_inline))

namespace tandem::ops::cpu::TANDEM_ISA {

// Calls body(integral_constant i) for i in [0, N): unrolled by the front end, so that arrays of Vec
// indexed by i live in registers.
template <int... I, typename Body>
TANDEM_INLINE void unroll_sequence(std::integer_sequence<int, I...>, const Body& body) {
  (body(std::integral_constant<int, I>{}), ...);
}
template <int N, typename Body>
TANDEM_INLINE void unroll(const Body& body) {
  unroll_sequence(std::make_integer_sequence<int, N>{}, body);
}

// The sum of the lanes in one fixed tree: l + (l+8), then l + (l+4), then (0+1) + (2+3).
TANDEM_INLINE float reduce_add(Vec v) {
  const __m128 f = fold(v);
  const __m128 h = _mm_hadd_ps(f, f);
  return _mm_cvtss_f32(_mm_hadd_ps(h, h));
}

// Four such sums at once.
TANDEM_INLINE __m128 reduce_add4(Vec a, Vec b, Vec c, Vec d) {
  return _mm_hadd_ps(_mm_hadd_ps(fold(a), fold(b)), _mm_hadd_ps(fold(c), fold(d)));
}

#if !defined(__AVX512F__)
// Eight such sums.
TANDEM_INLINE __m256 reduce_add8(const Vec (&v)[8]) {
  return _mm256_set_m128(reduce_add4(v[4], v[5], v[6], v[7]), reduce_add4(v[0], v[1], v[2], v[3]));
}
#endif

// Round to nearest even, as core::to_bf16; the low 16 bits of every lane are the bfloat16.
TANDEM_INLINE IVec bf16_bits(Vec v) {
  const IVec bits = as_int(v);
  const IVec odd = and_(shift_right<16>(bits), set1_int(1));
  const IVec rounded = shift_right<16>(add(bits, add(odd, set1_int(0x7fff))));
  const IVec quiet_nan = or_(shift_right<16>(bits), set1_int(0x40));
  return select(is_nan(v), quiet_nan, rounded);
}
TANDEM_INLINE Vec round_bf16(Vec v) {
  return as_float(shift_left<16>(bf16_bits(v)));
}

// How one element type is read as floats. The value is load() * kFold: E4M3 goes through FP16 with
// shifts, which is exact for subnormals too but smaller by 2^8; the caller's scale takes it up.
// Dot products read kStep elements at a time, in two halves for the narrow types: the even ones,
// then the odd ones; where kWide is set, twice that at once, the same in four parts. Their other
// operand lies in scratch in that order (store_for_dot).
struct F32Element {
  using Storage = float;
  static constexpr float kFold = 1.0F;
  static constexpr int kHalves = 1;
  static constexpr bool kWide = false;
  static TANDEM_INLINE Vec load(const float* p) { return cpu::TANDEM_ISA::load(p); }
  static TANDEM_INLINE Vec load(const float* p, int count) {
    return cpu::TANDEM_ISA::load(p, count);
  }
  template <int kHalf>
  static TANDEM_INLINE Vec half(const float* p) {
    return load(p);
  }
  template <int kHalf>
  static TANDEM_INLINE Vec half(const float* p, int count) {
    return load(p, count);
  }
};
struct Bf16Element {
  using Storage = uint16_t;
  static constexpr float kFold = 1.0F;
  static constexpr int kHalves = 2;
  static constexpr bool kWide = false;
  static TANDEM_INLINE Vec load(const uint16_t* p) { return load_bf16(p); }
  static TANDEM_INLINE Vec load(const uint16_t* p, int count) { return load_bf16(p, count); }
  template <int kHalf>
  static TANDEM_INLINE Vec half(const uint16_t* p) {
    return load_bf16_half<kHalf>(p);
  }
  template <int kHalf>
  static TANDEM_INLINE Vec half(const uint16_t* p, int count) {
    return load_bf16_half<kHalf>(p, count);
  }
};
// kKeepNan false for weights, whose NaN bytes have been refused when the file was read; true for
// keys and values, where a NaN byte is a NaN.
template <bool kKeepNan>
struct Fp8Of : WideFp8<kKeepNan> {
  using Storage = uint8_t;
  static constexpr float kFold = 256.0F;
  static constexpr int kHalves = 2;
  static TANDEM_INLINE Vec load(const uint8_t* p) { return decode_fp8<kKeepNan>(load_bytes(p)); }
  static TANDEM_INLINE Vec load(const uint8_t* p, int count) {
    return decode_fp8<kKeepNan>(load_bytes(p, count));
  }
  template <int kHalf>
  static TANDEM_INLINE Vec half(const uint8_t* p) {
    return decode_fp8_half<kKeepNan, kHalf>(load_bytes32(p));
  }
  template <int kHalf>
  static TANDEM_INLINE Vec half(const uint8_t* p, int count) {
    return decode_fp8_half<kKeepNan, kHalf>(load_bytes32(p, count));
  }
};
using Fp8Element = Fp8Of<false>;
using Fp8NanElement = Fp8Of<true>;

// 32 neighbours as dot products of kHalves want them.
TANDEM_INLINE void store_for_dot(float* to, int halves, Vec first, Vec second) {
  store(to, halves == 2 ? every_second<0>(first, second) : first);
  store(to + 16, halves == 2 ? every_second<1>(first, second) : second);
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
