// Weights as BF16 tiles of 16 outputs and 32 elements, zeros where there are none.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/tiles.h"
#include "ops/cpu/vec.h"

#if defined(__AVX512F__)
namespace tandem::ops::cpu::avx512 {

// 32 E4M3 bytes as BF16, exactly. A normal byte's exponent grows by the difference of the biases
// (120). A subnormal one, or zero, is looked up: BF16 products take its bits for a normal number.
TANDEM_INLINE __m512i bf16_of_e4m3(__m256i bytes) {
  // m * 2^-9 for m = 0 to 7. The index is the low five bits: the three of m, two of the exponent.
  const __m512i subnormals = _mm512_inserti32x4(
      _mm512_setzero_si512(),
      _mm_set_epi16(0x3c60, 0x3c40, 0x3c20, 0x3c00, 0x3bc0, 0x3b80, 0x3b00, 0), 0);
  const __m512i wide = _mm512_cvtepi8_epi16(bytes);
  const __m512i shifted = _mm512_slli_epi16(wide, 4);
  const __m512i normal = _mm512_add_epi16(_mm512_and_si512(shifted, _mm512_set1_epi16(0x07f0)),
                                          _mm512_set1_epi16(120 << 7));
  const __mmask32 small = _mm512_testn_epi16_mask(wide, _mm512_set1_epi16(0x78));
  const __m512i magnitude = _mm512_mask_permutexvar_epi16(normal, small, wide, subnormals);
  constexpr int kFirstAndThirdOrSecond = 0xec;
  return _mm512_ternarylogic_epi32(
      shifted, magnitude, _mm512_set1_epi16(static_cast<int16_t>(0x8000)), kFirstAndThirdOrSecond);
}

// The first `count` of 32 elements, 1 to 32; the memory of the others is not touched.
TANDEM_INLINE __m512i bf16_words(const uint8_t* p, int64_t count) {
  return bf16_of_e4m3(count == kTileDepth ? load_bytes32(p)
                                          : load_bytes32(p, static_cast<int>(count)));
}
TANDEM_INLINE __m512i bf16_words(const uint16_t* p, int64_t count) {
  if (count == kTileDepth) return _mm512_loadu_si512(p);
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << count) - 1U), p);
}

// Whether the tile can be loaded from the weight itself.
template <typename E>
TANDEM_INLINE bool lies_ready(const LinearJob& job, int64_t out, int64_t product) {
  return sizeof(typename E::Storage) == 2 && out + kTileOuts <= job.out &&
         (product + 1) * kTileDepth <= job.in;
}

// Elements of product `product`, 1 to 32.
TANDEM_INLINE int64_t length_of(const LinearJob& job, int64_t product) {
  const int64_t left = job.in - product * kTileDepth;
  return left < kTileDepth ? left : kTileDepth;
}

// The tile of outputs from `out` on and product `product`: to [16, 32].
template <typename E>
TANDEM_INLINE void stage(const LinearJob& job, int64_t out, int64_t product, uint16_t* to) {
  const auto* from = static_cast<const typename E::Storage*>(job.weight) + out * job.weight_stride +
                     product * kTileDepth;
  const int64_t outs = job.out - out < kTileOuts ? job.out - out : kTileOuts;
  if (outs == kTileOuts && (product + 1) * kTileDepth <= job.in) {
    unroll<kTileOuts>([&](auto o) TANDEM_LAMBDA {
      _mm512_store_si512(to + o * kTileDepth, bf16_words(from + o * job.weight_stride, kTileDepth));
    });
    return;
  }
  for (int64_t o = 0; o < kTileOuts; ++o)
    _mm512_store_si512(to + o * kTileDepth,
                       o < outs ? bf16_words(from + o * job.weight_stride, length_of(job, product))
                                : _mm512_setzero_si512());
}

// Two complete products of one tile of FP8 outputs: a row's two pieces share a line, which may
// leave the L1 cache before a second visit. Each row also asks for what lies `ahead` bytes behind
// it. No branch for pieces without subnormal numbers: memory is the limit, and mistaken guesses
// cost more.
TANDEM_INLINE void stage_pair(const LinearJob& job, int64_t out, int64_t product, int64_t ahead,
                              uint16_t* first, uint16_t* second) {
  const auto* from =
      static_cast<const uint8_t*>(job.weight) + out * job.weight_stride + product * kTileDepth;
  for (int64_t o = 0; o < kTileOuts; ++o, from += job.weight_stride) {
    _mm_prefetch(reinterpret_cast<const char*>(from + ahead), _MM_HINT_T1);
    _mm512_store_si512(first + o * kTileDepth, bf16_words(from, kTileDepth));
    _mm512_store_si512(second + o * kTileDepth, bf16_words(from + kTileDepth, kTileDepth));
  }
}

// Products [begin, end) of one tile of outputs, every second tile of a panel of two; row by row,
// because neighbours in memory come sooner.
template <typename E>
void stage_panel(const LinearJob& job, int64_t out, int64_t begin, int64_t end, uint16_t* panel) {
  for (int64_t o = 0; o < kTileOuts; ++o) {
    const auto* const from =
        static_cast<const typename E::Storage*>(job.weight) + (out + o) * job.weight_stride;
    uint16_t* to = panel + o * kTileDepth;
    for (int64_t k = begin; k < end; ++k, to += 2 * kTileOuts * kTileDepth)
      _mm512_store_si512(to, out + o < job.out
                                 ? bf16_words(from + k * kTileDepth, length_of(job, k))
                                 : _mm512_setzero_si512());
  }
}

}  // namespace tandem::ops::cpu::avx512
#endif
