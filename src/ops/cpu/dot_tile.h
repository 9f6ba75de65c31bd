// Tiles of dot products: the one inner loop of linear and of attention scores.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/vec.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

template <int kOuts, int kRows, typename Body>
TANDEM_INLINE void for_tile(const Body& body) {
  unroll<kOuts>([&](auto o)
                    TANDEM_LAMBDA { unroll<kRows>([&](auto r) TANDEM_LAMBDA { body(o, r); }); });
}

template <int kOuts, int kRows>
TANDEM_INLINE void fill_zero(Vec (&sums)[kOuts][kRows]) {
  for_tile<kOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA { sums[o][r] = zero(); });
}

// What will be read soon: kCount rows of elements of `size` bytes, brought into the cache step by
// step with a dot product.
template <int kCount>
struct Ahead {
  const char* rows[kCount > 0 ? kCount : 1];
  int64_t size;
  TANDEM_INLINE void fetch(int64_t i) const {
    unroll<kCount>([&](auto row)
                       TANDEM_LAMBDA { _mm_prefetch(rows[row] + i * size, _MM_HINT_T0); });
  }
};

// sums[o][r] += w[o] . x[r] over [begin, end), lane by lane: with one half, lane l takes the
// elements whose index is l modulo 16, in order; with two, those whose half index is. One fused
// multiply-add each. So a sum's bits depend on nothing but its own two vectors. x is padded with
// zeros to a multiple of 32; begin is such a multiple. A later kernel on tiles or BF16 dot products
// (AMX, AVX512-BF16) has another order of summation and takes the place of this function as a
// whole, for all numbers of rows.
template <typename E, int kOuts, int kRows, int kAhead>
TANDEM_INLINE void dot_tile(const typename E::Storage* const* w, const float* x, int64_t x_stride,
                            int64_t begin, int64_t end, const Ahead<kAhead>& ahead,
                            Vec (&sums)[kOuts][kRows]) {
  constexpr int64_t kStep = E::kHalves * kLanes;
  int64_t i = begin;
  if constexpr (E::kWide) {
    constexpr int64_t kWideStep = 2 * kStep;
    for (; i + kWideStep <= end; i += kWideStep) {
      ahead.fetch(i);
      unroll<kOuts>([&](auto o) TANDEM_LAMBDA {
        const auto words = E::words(w[o] + i);
        unroll<2 * E::kHalves>([&](auto part) TANDEM_LAMBDA {
          const Vec weight = E::template part<part>(words);
          unroll<kRows>([&](auto r) TANDEM_LAMBDA {
            sums[o][r] = fma(weight, load(x + r * x_stride + i + part * kLanes), sums[o][r]);
          });
        });
      });
    }
  }
  const auto step = [&](int64_t at, auto half, auto load_weight) TANDEM_LAMBDA {
    Vec rows[kRows];
    unroll<kRows>([&](auto r)
                      TANDEM_LAMBDA { rows[r] = load(x + r * x_stride + at + half * kLanes); });
    unroll<kOuts>([&](auto o) TANDEM_LAMBDA {
      const Vec weight = load_weight(w[o] + at);
      unroll<kRows>([&](auto r) TANDEM_LAMBDA { sums[o][r] = fma(weight, rows[r], sums[o][r]); });
    });
  };
  for (; i + kStep <= end; i += kStep) {
    ahead.fetch(i);
    unroll<E::kHalves>([&](auto half) TANDEM_LAMBDA {
      constexpr int kHalf = half;
      step(i, half,
           [](const typename E::Storage* p) TANDEM_LAMBDA { return E::template half<kHalf>(p); });
    });
  }
  if (i < end) {
    const int count = static_cast<int>(end - i);
    unroll<E::kHalves>([&](auto half) TANDEM_LAMBDA {
      constexpr int kHalf = half;
      step(i, half, [count](const typename E::Storage* p) TANDEM_LAMBDA {
        return E::template half<kHalf>(p, count);
      });
    });
  }
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
