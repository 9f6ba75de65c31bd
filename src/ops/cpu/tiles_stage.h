// Weights as BF16 tiles of 16 outputs and 32 elements, where they do not lie ready in memory.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/tiles.h"
#include "ops/cpu/tiles_widen.h"

#if defined(__AVX512F__)
namespace tandem::ops::cpu::avx512 {

inline constexpr int64_t kTileWords = kTileOuts * kTileDepth;

// Products whose BF16 weights are staged at once, without a panel.
inline constexpr int64_t kStagedProducts = 4;
// FP8 weights: pairs of products that are staged or being read, without a panel.
inline constexpr int64_t kStagedPairs = 4;
inline constexpr int64_t kPairDepth = 2 * kTileDepth;  // elements of a pair

// The first `count` of 32 elements, 1 to 32; the memory of the others is not touched.
TANDEM_INLINE __m512i bf16_words(const uint16_t* p, int64_t count) {
  if (count == kTileDepth) return _mm512_loadu_si512(p);
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << count) - 1U), p);
}
// The same of 64 bytes.
TANDEM_INLINE __m512i fp8_bytes(const uint8_t* p, int64_t count) {
  if (count >= kPairDepth) return _mm512_loadu_si512(p);
  return _mm512_maskz_loadu_epi8((uint64_t{1} << count) - 1U, p);
}

// Whether the tile can be loaded from the weight itself.
template <typename E>
TANDEM_INLINE bool lies_ready(const LinearJob& job, int64_t out, int64_t product) {
  return sizeof(typename E::Storage) == 2 && out + kTileOuts <= job.out &&
         (product + 1) * kTileDepth <= job.in;
}

// Elements of BF16 product `product`, 1 to 32.
TANDEM_INLINE int64_t length_of(const LinearJob& job, int64_t product) {
  const int64_t left = job.in - product * kTileDepth;
  return left < kTileDepth ? left : kTileDepth;
}

// The BF16 tile of outputs from `out` on and product `product`, zeros where there are none: to
// [16, 32].
TANDEM_INLINE void stage(const LinearJob& job, int64_t out, int64_t product, uint16_t* to) {
  const auto* from =
      static_cast<const uint16_t*>(job.weight) + out * job.weight_stride + product * kTileDepth;
  for (int64_t o = 0; o < kTileOuts; ++o)
    _mm512_store_si512(to + o * kTileDepth,
                       out + o < job.out
                           ? bf16_words(from + o * job.weight_stride, length_of(job, product))
                           : _mm512_setzero_si512());
}

// Widens FP8 weights, pair of products by pair, through all groups of outputs of a thread's part,
// each pair in four quarters: between them stand the unit's operations on earlier pairs, so that
// both are under way at once. Each row also asks for what lies some lines behind it, or at the
// beginning of the next group's. Short rows lie in few pages, where the core's own prefetching
// loses track of 32 of them: the next group is asked for as well, as it lies in memory. No branch
// for pieces without subnormal numbers: mistaken guesses cost more.
template <typename Tiles>
class Stager {
 public:
  static constexpr int kQuarters = 4;

  Stager(const LinearJob& job, int64_t begin, int64_t end, uint16_t* places)
      : job_(job),
        end_(end),
        places_(places),
        short_rows_(job.in <= 2048 && job.weight_stride == job.in),
        out_(begin) {
    look();
  }

  // Nothing once the last pair has been staged.
  TANDEM_INLINE void quarter() {
    if (out_ >= end_) return;
    constexpr int64_t kRows = kTileGroup / kQuarters;
    const int64_t row = quarter_ * kRows;
    const int64_t stride = job_.weight_stride;
    const auto* from = static_cast<const uint8_t*>(job_.weight) + pair_ * kPairDepth;
    uint16_t* to =
        places_ + (place_ * 4 + row / kTileOuts) * kTileWords + row % kTileOuts * kTileDepth;
    if (whole_) {
      if (short_rows_ && out_ + 2 * kTileGroup <= end_) fetch_next_group(row);
      const int64_t ahead = ahead_;
      from += (out_ + row) * stride;
      for (int64_t o = 0; o < kRows; ++o, from += stride, to += kTileDepth) {
        _mm_prefetch(reinterpret_cast<const char*>(from + ahead), _MM_HINT_T0);
        store(Tiles::widen(_mm512_loadu_si512(from)), to);
      }
    } else {
      // An output behind the last repeats it: nobody looks at its sums.
      const int64_t last = job_.out - 1;
      const int64_t left = job_.in - pair_ * kPairDepth;
      for (int64_t out = out_ + row; out < out_ + row + kRows; ++out, to += kTileDepth)
        store(Tiles::widen(fp8_bytes(from + (out < last ? out : last) * stride, left)), to);
    }
    if (++quarter_ == kQuarters) next_pair();
  }

 private:
  TANDEM_INLINE static void store(const Widened& words, uint16_t* to) {
    _mm512_store_si512(to, words.first);
    _mm512_store_si512(to + 2 * kTileWords, words.second);
  }

  // A line for each row of this quarter, one behind the other.
  TANDEM_INLINE void fetch_next_group(int64_t row) const {
    const auto* const lines = static_cast<const char*>(job_.weight) +
                              (out_ + kTileGroup) * job_.weight_stride +
                              (pair_ * kTileGroup + row) * 64;
    for (int64_t o = 0; o < kTileGroup / kQuarters; ++o) _mm_prefetch(lines + o * 64, _MM_HINT_T1);
  }

  TANDEM_INLINE void next_pair() {
    quarter_ = 0;
    place_ = (place_ + 1) % kStagedPairs;
    if (++pair_ * 2 == job_.tiles.num_products) {
      pair_ = 0;
      out_ += kTileGroup;
    }
    look();
  }

  TANDEM_INLINE void look() {
    const int64_t ahead = (short_rows_ ? 2 : 8) * int64_t{64};
    const int64_t column = pair_ * kPairDepth;
    whole_ = out_ + kTileGroup <= job_.out && column + kPairDepth <= job_.in;
    const bool next = out_ + 2 * kTileGroup <= end_;
    const int64_t to_next = next ? kTileGroup * job_.weight_stride + ahead - job_.in : 0;
    ahead_ = column + ahead < job_.in ? ahead : to_next;
  }

  const LinearJob& job_;
  int64_t end_;       // of the part's outputs
  uint16_t* places_;  // [kStagedPairs, 2 products, 2 output tiles, 16, 32]
  bool short_rows_;
  // What comes next.
  int64_t out_;  // the group's first
  int64_t pair_ = 0;
  int64_t place_ = 0;
  int64_t quarter_ = 0;
  bool whole_ = false;
  int64_t ahead_ = 0;  // bytes
};

// Products [begin, end) of one tile of outputs, every second tile of a panel of two; row by row,
// because neighbours in memory come sooner.
template <typename E, typename Tiles>
void stage_panel(const LinearJob& job, int64_t out, int64_t begin, int64_t end, uint16_t* panel) {
  for (int64_t o = 0; o < kTileOuts; ++o) {
    const int64_t row = out + o < job.out ? out + o : job.out - 1;
    const auto* const from =
        static_cast<const typename E::Storage*>(job.weight) + row * job.weight_stride;
    uint16_t* to = panel + o * kTileDepth;
    if constexpr (sizeof(typename E::Storage) == 1) {
      for (int64_t k = begin; k < end; k += 2, to += 4 * kTileWords) {
        const int64_t at = k * kTileDepth;
        const Widened words = Tiles::widen(fp8_bytes(from + at, job.in - at));
        _mm512_store_si512(to, words.first);
        _mm512_store_si512(to + 2 * kTileWords, words.second);
      }
    } else {
      for (int64_t k = begin; k < end; ++k, to += 2 * kTileWords)
        _mm512_store_si512(to, bf16_words(from + k * kTileDepth, length_of(job, k)));
    }
  }
}

}  // namespace tandem::ops::cpu::avx512
#endif
