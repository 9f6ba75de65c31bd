// Attention of some rows and heads over one KV head: online softmax over blocks of keys that lie at
// absolute positions, so that a row's bits depend on its own keys only.
#pragma once

#include "ops/cpu/attention_tiles.h"

#if defined(TANDEM_ISA)
namespace tandem::ops::cpu::TANDEM_ISA {

// Pairs [begin, end), all with the keys `keys` of this block.
template <typename E>
void attend_block(const AttentionJob& job, const AttentionItem& item, const AttentionState& state,
                  int64_t begin, int64_t end, KeyRange keys, int64_t block) {
  const int64_t sequence = job.sequences[item.row_begin];
  const typename E::Storage* k[kKeyBlock];
  const typename E::Storage* v[kKeyBlock];
  addresses<E>(job, job.k, job.k_stride, item.kv_head, sequence, keys, k);
  addresses<E>(job, job.v, job.v_stride, item.kv_head, sequence, keys, v);
  const int64_t tiles = (end - begin + kTallRows - 1) / kTallRows;
  int64_t pair = begin;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t rows = (end - begin) / tiles + (tile < (end - begin) % tiles ? 1 : 0);
    unroll<kTallRows>([&](auto i) {
      if (rows != i + 1) return;
      score_tile<E, i + 1>(state, k, v, job.k_scale * E::kFold, pair, keys, block, job.head_dim);
      for (int64_t p = pair; p < pair + rows; ++p) soften(state, p, keys, block);
      value_rows<E, i + 1>(state, v, pair, keys, block, job.head_dim);
    });
    pair += rows;
  }
}

// All blocks of the item, in order of position.
template <typename E>
void attend(const AttentionJob& job, const AttentionItem& item, const AttentionState& state) {
  KeyRange all = keys_of(job, item.row_begin);
  for (int64_t row = item.row_begin + 1; row < item.row_end; ++row) {
    const KeyRange keys = keys_of(job, row);
    if (keys.begin == keys.end) continue;
    all.begin = all.begin == all.end || keys.begin < all.begin ? keys.begin : all.begin;
    all.end = keys.end > all.end ? keys.end : all.end;
  }
  for (int64_t block = all.begin / kKeyBlock * kKeyBlock; block < all.end; block += kKeyBlock) {
    int64_t row = item.row_begin;
    while (row < item.row_end) {
      // Neighbours with the same keys in this block share its loads.
      const KeyRange keys = keys_in_block(keys_of(job, row), block);
      const int64_t first = row++;
      while (row < item.row_end) {
        const KeyRange next = keys_in_block(keys_of(job, row), block);
        if (next.begin != keys.begin || next.end != keys.end) break;
        ++row;
      }
      if (keys.begin < keys.end)
        attend_block<E>(job, item, state, (first - item.row_begin) * state.heads,
                        (row - item.row_begin) * state.heads, keys, block);
    }
  }
}

inline void attention(const AttentionJob& job, const AttentionItem& item, float* scratch) {
  AttentionState state;
  state.heads = item.head_end - item.head_begin;
  state.stride = padded(job.head_dim);
  const int64_t pairs = (item.row_end - item.row_begin) * state.heads;
  state.q = scratch;
  state.sums = state.q + pairs * state.stride;
  state.weights = state.sums + pairs * state.stride;
  state.maximum = state.weights + pairs * kKeyBlock;
  state.total = state.maximum + pairs;
  state.shrink = state.total + pairs;
  const auto column_of = [&](int64_t pair) {
    return (item.kv_head * job.group + item.head_begin + pair % state.heads) * job.head_dim;
  };
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t row = item.row_begin + pair / state.heads;
    const auto query = [&](int64_t i) {
      if (i >= job.head_dim) return zero();
      const int64_t left = job.head_dim - i;
      return load_lanes(job.q, row, column_of(pair) + i,
                        static_cast<int>(left < kLanes ? left : kLanes));
    };
    for (int64_t i = 0; i < job.head_dim; i += 2 * kLanes) {
      const int64_t at = pair * state.stride + i;
      store_for_dot(state.q + at, halves_of(job.element), query(i), query(i + kLanes));
      store(state.sums + at, zero());
      store(state.sums + at + kLanes, zero());
    }
    state.maximum[pair] = -__builtin_inff();
    state.total[pair] = 0.0F;
  }
  float fold = 1.0F;
  switch (job.element) {
    case Element::kF32:
      attend<F32Element>(job, item, state);
      break;
    case Element::kBF16:
      attend<Bf16Element>(job, item, state);
      break;
    case Element::kFp8:
      attend<Fp8NanElement>(job, item, state);
      fold = Fp8NanElement::kFold;
      break;
  }
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t row = item.row_begin + pair / state.heads;
    // A row without keys gives zeros.
    const float factor = state.total[pair] == 0.0F ? 0.0F : job.v_scale * fold / state.total[pair];
    for_lanes(0, job.head_dim, [&](int64_t i, int count) TANDEM_LAMBDA {
      const Vec sum = load(state.sums + pair * state.stride + i);
      store_lanes(job.out, row, column_of(pair) + i, count, mul(sum, set1(factor)));
    });
  }
}

}  // namespace tandem::ops::cpu::TANDEM_ISA
#endif
