// The KV places of the emulated models: layer 0 slides, layer 1 is full, and a place holds which
// token was written for which position.
#pragma once

#include <cstdint>
#include <cstring>

#include "gpu/kv_cache.h"
#include "gpu/models.h"

namespace tandem::emulated {

inline constexpr int64_t kSlidingLayer = 0;
inline constexpr int64_t kFullLayer = 1;
// BF16 values of a state: a Word.
inline constexpr int64_t kHidden = 8;
// A row's state: what its keys say, and its position.
struct Word {
  uint64_t hash = ~uint64_t{0};
  uint64_t position = ~uint64_t{0};
};
static_assert(sizeof(Word) == kHidden * sizeof(uint16_t));

// Row `row` of states [*, kHidden].
inline Word word_at(const uint16_t* states, int64_t row) {
  uint64_t values[2];
  std::memcpy(values, states + row * kHidden, sizeof(values));
  return {values[0], values[1]};
}
inline void set_word(const Word& word, uint16_t* states, int64_t row) {
  std::memcpy(states + row * kHidden, &word, sizeof(word));
}

// The tables of a pass, of any kind of pass.
struct Places {
  const gpu::KvCache* kv;
  ops::cuda::KvTable ring, pages;

  void write_ring(int sequence, int64_t position, int32_t token) const;
  void write_pages(int sequence, int64_t position, int32_t token) const;
  // Of the tokens in the pages up to `last`, which must all be there.
  uint64_t hash_up_to(int sequence, int64_t last) const;
  // The window of a row at `position`: keys before `end` are those of the pages.
  void check_ring(int sequence, int64_t position, int64_t end) const;
};

}  // namespace tandem::emulated
