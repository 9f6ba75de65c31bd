// Candidates of a head as numbers that compare as the candidates do.
#pragma once

#include <cstdint>

#include "ops/cuda/accept.cuh"
#include "ops/cuda/head.h"
#include "ops/cuda/ptx.cuh"

namespace tandem::ops::cuda {

inline constexpr unsigned kWholeWarp = 0xffffffffU;

// The larger one comes first, likeliest first and then the lower id. 0: none. All ones: the row is
// not finite.
using Key = unsigned long long;
inline constexpr Key kNoKey = 0;
inline constexpr Key kNotFiniteKey = ~0ULL;

// Unsigned order of the result = order of the floats. -0 equals +0.
__device__ inline uint32_t ordered(float value) {
  const uint32_t bits = __float_as_uint(value == 0.0F ? 0.0F : value);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}
__device__ inline float from_ordered(uint32_t order) {
  return __uint_as_float((order >> 31) != 0 ? order & 0x7fffffffU : ~order);
}
__device__ inline Key make_key(float logit, int id) {
  return (static_cast<Key>(ordered(logit)) << 32) | ~static_cast<uint32_t>(id);
}
__device__ inline int key_id(Key key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}
__device__ inline float key_logit(Key key) {
  return from_ordered(static_cast<uint32_t>(key >> 32));
}

// Of the logits of tokens id .. id + 3, id a multiple of 4. Constants: read before a wait, if need
// be.
__device__ inline float4 scales_of(const HeadLogits& head, int id) {
  if (head.scales == nullptr) return make_float4(head.scale, head.scale, head.scale, head.scale);
  return *reinterpret_cast<const float4*>(head.scales + id);
}

// For where few logits need it: not unrolled into all places.
__device__ __noinline__ inline float capped_rarely(float cap, float x) {
  return cap * tanhf(x / cap);
}

// The cap makes infinities finite, so that only NaN stays.
__device__ inline bool is_finite(const HeadLogits& head, float x) {
  return head.cap > 0.0F ? x == x : x < __int_as_float(0x7f800000);
}

// tanh is needed only where it could be the largest. While |x| <= 4 cap, its slope is at least
// 1.3e-3: an x that is cap / 256 smaller has a capped logit that is 5e-6 cap smaller, ten times
// more than rounding can hide. Below this no logit can come first.
__device__ inline float floor_of(float cap, float largest) {
  if (cap <= 0.0F) return largest;
  return fabsf(largest) <= 4.0F * cap ? largest - cap / 256.0F : -__int_as_float(0x7f800000);
}

__device__ inline bool is_among(const int32_t* ids, int count, int id) {
  bool found = false;
#pragma unroll 1
  for (int i = 0; i < count; ++i) found = found || ids[i] == id;
  return found;
}

struct ArgmaxScratch {
  Key* keys;           // [num_rows] the first candidate so far
  unsigned* arrivals;  // [num_rows] who has told theirs
  uint32_t* largest;   // [num_rows] ordered(): a logit that there is (head_argmax.cu)
};
inline ArgmaxScratch argmax_scratch(void* scratch, int num_rows) {
  auto* const keys = static_cast<Key*>(scratch);
  auto* const arrivals = reinterpret_cast<unsigned*>(keys + num_rows);
  return {keys, arrivals, arrivals + num_rows};
}

// One thread of each of `count` that have candidates of a row. Keys meet in one maximum, so that
// the order in which they arrive does not matter; the last one passes the token on. Whether this
// was the last one.
__device__ inline bool tell_candidate(const ArgmaxScratch& scratch, int row, unsigned count,
                                      Key key, int32_t* tokens, const DraftToken& draft) {
  const DraftPlace place = draft_place(draft, row);
  if (key != kNoKey) atomicMax(&scratch.keys[row], key);
  // Wraps to zero after the last.
  if (ptx::count_up(&scratch.arrivals[row], count - 1) != count - 1) return false;
  const Key first = atomicExch(&scratch.keys[row], kNoKey);
  const int token = first == kNoKey || first == kNotFiniteKey ? -1 : key_id(first);
  tokens[row] = token;
  if (draft.tokens != nullptr) take_draft(draft, row, place, token);
  return true;
}

}  // namespace tandem::ops::cuda
