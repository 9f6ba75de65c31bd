// y = x W^T in tiles of outputs and rows. Tiles change what is shared, never a sum.
#pragma once

#include "ops/cpu/linear_tiles.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

// Few rows: outputs [begin, end) straight from the weights; each is read from memory once.
template <typename E, int kOuts, int kMaxRows>
void linear_direct(const LinearJob& job, int64_t begin, int64_t end) {
  const auto* const weight = static_cast<const typename E::Storage*>(job.weight);
  for (int64_t out = begin; out < end; out += kOuts) {
    // Past the last output a tile repeats it; the repetition is not stored.
    const typename E::Storage* w[kOuts];
    for (int o = 0; o < kOuts; ++o)
      w[o] = weight + (out + o < end ? out + o : end - 1) * job.weight_stride;
    for_row_tiles<kMaxRows>(job.n, [&](int64_t row, auto rows) {
      Vec total[kOuts][rows];
      fill_zero(total);
      accumulate<E, kOuts, rows>(job, w, job.x + row * padded(job.in), out, 0, job.in, total);
      finish<kOuts, rows>(job, E::kFold, out, end, row, total);
    });
  }
}

// Weights [out, out + count) x [begin, begin + length) as floats in the order of the prepared rows,
// padded with zeros.
template <typename E>
void decode_panel(const LinearJob& job, int64_t out, int64_t count, int64_t begin, int64_t length,
                  float* panel) {
  for (int64_t o = 0; o < count; ++o) {
    const auto* const from =
        static_cast<const typename E::Storage*>(job.weight) + (out + o) * job.weight_stride + begin;
    float* const to = panel + o * kPanelDepth;
    constexpr int64_t kStep = E::kHalves * kLanes;
    int64_t i = 0;
    for (; i + kStep <= length; i += kStep)
      unroll<E::kHalves>([&](auto half) TANDEM_LAMBDA {
        store(to + i + half * kLanes, E::template half<half>(from + i));
      });
    for (; i < padded(length); i += kStep)
      unroll<E::kHalves>([&](auto half) TANDEM_LAMBDA {
        store(to + i + half * kLanes,
              i < length ? E::template half<half>(from + i, static_cast<int>(length - i)) : zero());
      });
  }
}

// Many rows: a panel of weights is decoded once and stays in the L2 cache, a tile of rows of the
// same depth in the L1 cache. Between depths the sums wait, lane by lane, in scratch.
inline void linear_panels(const LinearJob& job, int64_t begin, int64_t end, float* scratch,
                          decltype(&decode_panel<F32Element>) decode, float fold) {
  float* const panel = scratch;
  float* const waiting = scratch + kPanelOuts * kPanelDepth;
  for (int64_t first = begin; first < end; first += kPanelOuts) {
    const int64_t stop = first + kPanelOuts < end ? first + kPanelOuts : end;
    for (int64_t depth = 0; depth < job.in; depth += kPanelDepth) {
      const int64_t length = job.in - depth < kPanelDepth ? job.in - depth : kPanelDepth;
      decode(job, first, stop - first, depth, length, panel);
      for_row_tiles<kTallRows>(job.n, [&](int64_t row, auto rows) {
        for (int64_t out = first; out < stop; out += kTallOuts) {
          const float* w[kTallOuts];
          for (int64_t o = 0; o < kTallOuts; ++o)
            w[o] = panel + ((out + o < stop ? out + o : stop - 1) - first) * kPanelDepth;
          float* const here = waiting + (row * kPanelOuts + (out - first) * rows) * kLanes;
          Vec total[kTallOuts][rows];
          for_tile<kTallOuts, rows>([&](auto o, auto r) TANDEM_LAMBDA {
            total[o][r] = depth == 0 ? zero() : load(here + (o * rows + r) * kLanes);
          });
          accumulate<F32Element, kTallOuts, rows>(job, w, job.x + row * padded(job.in) + depth, out,
                                                  depth, padded(length), total);
          if (depth + length == job.in)
            finish<kTallOuts, rows>(job, fold, out, stop, row, total);
          else
            for_tile<kTallOuts, rows>([&](auto o, auto r) TANDEM_LAMBDA {
              store(here + (o * rows + r) * kLanes, total[o][r]);
            });
        }
      });
    }
  }
}

template <typename E>
void linear_element(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  if (job.n > kMaxDirectRows)
    linear_panels(job, begin, end, scratch, decode_panel<E>, E::kFold);
  else if (job.n <= kWideRows)
    linear_direct<E, kWideOuts, kWideRows>(job, begin, end);
  else
    linear_direct<E, kTallOuts, kTallRows>(job, begin, end);
}

inline void linear(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  switch (job.element) {
    case Element::kF32:
      return linear_element<F32Element>(job, begin, end, scratch);
    case Element::kBF16:
      return linear_element<Bf16Element>(job, begin, end, scratch);
    case Element::kFp8:
      return linear_element<Fp8Element>(job, begin, end, scratch);
  }
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
