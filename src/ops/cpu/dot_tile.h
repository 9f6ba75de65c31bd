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

// sums[o][r] += w[o] . x[r] over [begin, end), lane by lane: with one half, lane l takes the
// elements whose index is l modulo 16, in order; with two, those whose half index is. One fused
// multiply-add each. So a sum's bits depend on nothing but its own two vectors. x is padded with
// zeros to a multiple of 32; begin is such a multiple. A later kernel on tiles or BF16 dot products
// (AMX, AVX512-BF16) has another order of summation and takes the place of this function as a
// whole, for all numbers of rows.
template <typename E, int kOuts, int kRows>
TANDEM_INLINE void dot_tile(const typename E::Storage* const* w, const float* x, int64_t x_stride,
                            int64_t begin, int64_t end, Vec (&sums)[kOuts][kRows]) {
  constexpr int64_t kStep = E::kHalves * kLanes;
  const int64_t whole = begin + (end - begin) / kStep * kStep;
  const auto step = [&](int64_t i, auto half, auto load_weight) TANDEM_LAMBDA {
    Vec rows[kRows];
    unroll<kRows>([&](auto r)
                      TANDEM_LAMBDA { rows[r] = load(x + r * x_stride + i + half * kLanes); });
    unroll<kOuts>([&](auto o) TANDEM_LAMBDA {
      const Vec weight = load_weight(w[o] + i);
      unroll<kRows>([&](auto r) TANDEM_LAMBDA { sums[o][r] = fma(weight, rows[r], sums[o][r]); });
    });
  };
  for (int64_t i = begin; i < whole; i += kStep)
    unroll<E::kHalves>([&](auto half) TANDEM_LAMBDA {
      constexpr int kHalf = half;
      step(i, half,
           [](const typename E::Storage* p) TANDEM_LAMBDA { return E::template half<kHalf>(p); });
    });
  if (whole < end) {
    const int count = static_cast<int>(end - whole);
    unroll<E::kHalves>([&](auto half) TANDEM_LAMBDA {
      constexpr int kHalf = half;
      step(whole, half, [count](const typename E::Storage* p) TANDEM_LAMBDA {
        return E::template half<kHalf>(p, count);
      });
    });
  }
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
