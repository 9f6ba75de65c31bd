// The pieces of attention over one block of keys: scores, softmax weights, weighted values.
#pragma once

#include "ops/cpu/dot_tile.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/rows_kernel.h"
#include "ops/cpu/vec_math.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

// What one item keeps per (row, head) pair; pairs of one row lie together.
struct AttentionState {
  int64_t heads = 0;         // per row
  int64_t stride = 0;        // padded(head_dim)
  float* q = nullptr;        // [pairs, stride]
  float* sums = nullptr;     // [pairs, stride]: sum of exp(score - maximum) * v
  float* weights = nullptr;  // [pairs, kKeyBlock]: scores, then exp(score - maximum)
  float* maximum = nullptr;  // [pairs]
  float* total = nullptr;    // [pairs]: sum of the weights
  float* shrink = nullptr;   // [pairs]: exp(old maximum - new maximum)
};

struct KeyRange {
  int64_t begin, end;
};

TANDEM_INLINE KeyRange keys_of(const AttentionJob& job, int64_t row) {
  const int64_t end = static_cast<int64_t>(job.last_keys[row]) + 1;
  const int64_t begin = job.window == 0 || end < job.window ? 0 : end - job.window;
  return {begin, end > begin ? end : begin};
}

TANDEM_INLINE KeyRange keys_in_block(KeyRange keys, int64_t block) {
  const int64_t begin = keys.begin > block ? keys.begin : block;
  const int64_t end = keys.end < block + kKeyBlock ? keys.end : block + kKeyBlock;
  return {begin, end > begin ? end : begin};
}

// Addresses of the keys [begin, end) of one sequence: one table entry per run, no division per key.
template <typename E>
TANDEM_INLINE void addresses(const AttentionJob& job, const void* data, int64_t stride,
                             int64_t kv_head, int64_t sequence, KeyRange keys,
                             const typename E::Storage** out) {
  const auto* const base = static_cast<const typename E::Storage*>(data) + kv_head * job.head_dim;
  const int32_t* const table = job.block_table + sequence * job.max_blocks;
  int64_t key = keys.begin;
  while (key < keys.end) {
    const int64_t place = job.ring_len == 0 ? key : key % job.ring_len;
    const int64_t offset = place % job.block_size;
    const int64_t slot = table[place / job.block_size] * job.block_size + offset;
    const int64_t left = job.block_size - offset;
    const int64_t run = left < keys.end - key ? left : keys.end - key;
    for (int64_t i = 0; i < run; ++i) *out++ = base + (slot + i) * stride;
    key += run;
  }
}

// weights[pair][key - block] = q . k for kRows pairs from `pair` on. Keys lie a page apart, where
// nothing but this asks for them early: the next keys and the values of these.
template <typename E, int kRows>
TANDEM_INLINE void score_tile(const AttentionState& state, const typename E::Storage* const* k,
                              const typename E::Storage* const* v, float scale, int64_t pair,
                              KeyRange keys, int64_t block, int64_t head_dim) {
  for (int64_t key = keys.begin; key < keys.end; key += kTallOuts) {
    const typename E::Storage* w[kTallOuts];
    Ahead<2 * kTallOuts> ahead;
    ahead.size = sizeof(typename E::Storage);
    const auto place = [&](int64_t at) TANDEM_LAMBDA {
      return (at < keys.end ? at : keys.end - 1) - keys.begin;
    };
    for (int64_t o = 0; o < kTallOuts; ++o) {
      w[o] = k[place(key + o)];
      ahead.rows[o] = reinterpret_cast<const char*>(k[place(key + kTallOuts + o)]);
      ahead.rows[kTallOuts + o] = reinterpret_cast<const char*>(v[place(key + o)]);
    }
    Vec sums[kTallOuts][kRows];
    fill_zero(sums);
    dot_tile<E, kTallOuts, kRows>(w, state.q + pair * state.stride, state.stride, 0, head_dim,
                                  ahead, sums);
    const int64_t count = keys.end - key < kTallOuts ? keys.end - key : kTallOuts;
    unroll<kRows>([&](auto r) TANDEM_LAMBDA {
      float lanes[4];
      _mm_storeu_ps(lanes, _mm_mul_ps(reduce_add4(sums[0][r], sums[1][r], sums[2 % kTallOuts][r],
                                                  sums[3 % kTallOuts][r]),
                                      _mm_set1_ps(scale)));
      float* const to = state.weights + (pair + r) * kKeyBlock + (key - block);
      for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
    });
  }
}

// Scores of one pair's block to weights; brings its running maximum and total up to date.
TANDEM_INLINE void soften(const AttentionState& state, int64_t pair, KeyRange keys, int64_t block) {
  constexpr int kVecs = static_cast<int>(kKeyBlock / kLanes);
  float* const weights = state.weights + pair * kKeyBlock;
  Vec scores[kVecs];
  Mask valid[kVecs];
  Vec largest = set1(-__builtin_inff());
  const auto clamp = [](int64_t lane) TANDEM_LAMBDA {
    return static_cast<int>(lane < 0 ? 0 : (lane > kLanes ? kLanes : lane));
  };
  unroll<kVecs>([&](auto i) TANDEM_LAMBDA {
    const int64_t first = block + i * kLanes;
    valid[i] = lanes_between(clamp(keys.begin - first), clamp(keys.end - first));
    scores[i] = select(valid[i], load(weights + i * kLanes), set1(-__builtin_inff()));
    largest = max(largest, scores[i]);
  });
  const float before = state.maximum[pair];
  const float here = reduce_max(largest);
  const float after = before > here ? before : here;
  Vec total = zero();
  unroll<kVecs>([&](auto i) TANDEM_LAMBDA {
    const Vec weight = select(valid[i], exp(sub(scores[i], set1(after))), zero());
    store(weights + i * kLanes, weight);
    total = add(total, weight);
  });
  float shrink[kLanes];
  store(shrink, exp(set1(before - after)));
  state.shrink[pair] = shrink[0];
  state.maximum[pair] = after;
  state.total[pair] = state.total[pair] * shrink[0] + reduce_add(total);
}

// sums = sums * shrink + weights V for kRows pairs and kVecs * 16 columns from `column` on.
template <typename E, int kRows, int kVecs, bool kTail>
TANDEM_INLINE void value_tile(const AttentionState& state, const typename E::Storage* const* v,
                              int64_t pair, KeyRange keys, int64_t block, int64_t column,
                              int count) {
  Vec sums[kRows][kVecs];
  float* const to = state.sums + pair * state.stride + column;
  for_tile<kRows, kVecs>([&](auto r, auto c) TANDEM_LAMBDA {
    sums[r][c] = mul(load(to + r * state.stride + c * kLanes), set1(state.shrink[pair + r]));
  });
  const float* const weights = state.weights + pair * kKeyBlock;
  for (int64_t key = keys.begin; key < keys.end; ++key) {
    const typename E::Storage* const from = v[key - keys.begin] + column;
    unroll<kVecs>([&](auto c) TANDEM_LAMBDA {
      const Vec value = kTail ? E::load(from, count) : E::load(from + c * kLanes);
      unroll<kRows>([&](auto r) TANDEM_LAMBDA {
        sums[r][c] = fma(set1(weights[r * kKeyBlock + key - block]), value, sums[r][c]);
      });
    });
  }
  for_tile<kRows, kVecs>(
      [&](auto r, auto c) TANDEM_LAMBDA { store(to + r * state.stride + c * kLanes, sums[r][c]); });
}

template <typename E, int kRows>
TANDEM_INLINE void value_rows(const AttentionState& state, const typename E::Storage* const* v,
                              int64_t pair, KeyRange keys, int64_t block, int64_t head_dim) {
  constexpr int kVecs = kRows <= 2 ? 2 * kTallOuts / 4 : kTallOuts / 2;
  constexpr int64_t kColumns = kVecs * kLanes;
  int64_t column = 0;
  for (; column + kColumns <= head_dim; column += kColumns)
    value_tile<E, kRows, kVecs, false>(state, v, pair, keys, block, column, 0);
  for (; column + kLanes <= head_dim; column += kLanes)
    value_tile<E, kRows, 1, false>(state, v, pair, keys, block, column, 0);
  if (column < head_dim)
    value_tile<E, kRows, 1, true>(state, v, pair, keys, block, column,
                                  static_cast<int>(head_dim - column));
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
