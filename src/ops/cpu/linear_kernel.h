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
    Ahead<kOuts> ahead;
    ahead.size = sizeof(typename E::Storage);
    for (int o = 0; o < kOuts; ++o)
      ahead.rows[o] = reinterpret_cast<const char*>(w[o] + kOuts * job.weight_stride);
    for_row_tiles<kMaxRows>(job.n, [&](int64_t row, auto rows) {
      Vec total[kOuts][rows];
      fill_zero(total);
      accumulate<E, kOuts, rows>(job, w, job.x + row * padded(job.in), out, 0, job.in, ahead,
                                 total);
      finish<kOuts, rows>(job, E::kFold, out, end, row, total);
    });
  }
}

// Weights [out, out + count) x [begin, begin + length) as floats in the order of the prepared rows,
// padded with zeros.
template <typename E>
void decode_panel(const LinearJob& job, int64_t out, int64_t count, int64_t begin, int64_t length,
                  float* panel) {
  const int64_t stride = panel_shape(job.n).depth;
  for (int64_t o = 0; o < count; ++o) {
    const auto* const from =
        static_cast<const typename E::Storage*>(job.weight) + (out + o) * job.weight_stride + begin;
    float* const to = panel + o * stride;
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

// A panel of weights: outputs [first, stop), elements [depth, depth + length).
struct Panel {
  int64_t first, stop, depth, length;
};

inline Panel panel_at(const LinearJob& job, int64_t first, int64_t end, int64_t depth) {
  const PanelShape shape = panel_shape(job.n);
  return {first, first + shape.outs < end ? first + shape.outs : end, depth,
          job.in - depth < shape.depth ? job.in - depth : shape.depth};
}

// One tile of outputs and rows over the depth of a panel. Between depths its sums wait, lane by
// lane.
template <int kRows, int kAhead>
TANDEM_INLINE void panel_tile(const LinearJob& job, const Panel& panel, const float* weights,
                              int64_t out, int64_t row, float fold, const Ahead<kAhead>& ahead,
                              float* waiting) {
  const float* w[kTallOuts];
  for (int64_t o = 0; o < kTallOuts; ++o)
    w[o] = weights + ((out + o < panel.stop ? out + o : panel.stop - 1) - panel.first) *
                         panel_shape(job.n).depth;
  Vec total[kTallOuts][kRows];
  for_tile<kTallOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA {
    total[o][r] = panel.depth == 0 ? zero() : load(waiting + (o * kRows + r) * kLanes);
  });
  accumulate<F32Element, kTallOuts, kRows>(job, w, job.x + row * padded(job.in) + panel.depth, out,
                                           panel.depth, padded(panel.length), ahead, total);
  if (panel.depth + panel.length == job.in)
    finish<kTallOuts, kRows>(job, fold, out, panel.stop, row, total);
  else
    for_tile<kTallOuts, kRows>([&](auto o, auto r) TANDEM_LAMBDA {
      store(waiting + (o * kRows + r) * kLanes, total[o][r]);
    });
}

// All tiles of a panel. The weights of the next panel come into the cache meanwhile, two rows with
// each tile.
inline void panel_tiles(const LinearJob& job, const Panel& panel, const Panel& next, float fold,
                        int64_t size, const float* weights, float* waiting) {
  const char* const from = static_cast<const char*>(job.weight) + next.depth * size;
  int64_t tile = 0;
  for_row_tiles<kTallRows>(job.n, [&](int64_t row, auto rows) {
    for (int64_t out = panel.first; out < panel.stop; out += kTallOuts, ++tile) {
      float* const here =
          waiting + (row * panel_shape(job.n).outs + (out - panel.first) * rows) * kLanes;
      Ahead<2> ahead;
      ahead.size = size;
      for (int64_t i = 0; i < 2; ++i) {
        const int64_t o = next.first + 2 * tile + i;
        ahead.rows[i] = from + (o < next.stop ? o : next.first) * job.weight_stride * size;
      }
      if (next.first + 2 * tile < next.stop)
        panel_tile<rows>(job, panel, weights, out, row, fold, ahead, here);
      else
        panel_tile<rows>(job, panel, weights, out, row, fold, Ahead<0>{}, here);
    }
  });
}

// Many rows: a panel of weights is decoded once and stays in a cache, a tile of rows of the same
// depth in the L1 cache.
template <typename E>
void linear_panels(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  const PanelShape shape = panel_shape(job.n);
  float* const waiting = scratch + shape.outs * shape.depth;
  Panel panel = panel_at(job, begin, end, 0);
  while (panel.first < end) {
    const bool more = panel.depth + panel.length < job.in;
    const Panel next = more ? panel_at(job, panel.first, end, panel.depth + shape.depth)
                            : panel_at(job, panel.stop, end, 0);
    decode_panel<E>(job, panel.first, panel.stop - panel.first, panel.depth, panel.length, scratch);
    panel_tiles(job, panel, next, E::kFold, sizeof(typename E::Storage), scratch, waiting);
    panel = next;
  }
}

template <typename E>
void linear_element(const LinearJob& job, int64_t begin, int64_t end, float* scratch) {
  if (job.n > kMaxDirectRows)
    linear_panels<E>(job, begin, end, scratch);
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
