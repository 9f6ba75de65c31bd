// Random numbers of the sampler: those of core/random.h, and what is made of them.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/random.h"

namespace tandem::sampling {

using core::philox4x32_10;
using core::PhiloxCounter;
using core::Purpose;
using core::random_block;
using core::random_word;
using core::uniform;

// Gumbel noise from 64 random bits read as v in (0, 1), small v first: g = -log(-log(1 - v)). The
// tail that decides rare tokens lies at small v, where doubles keep their precision.
inline double gumbel_from_bits(uint32_t high, uint32_t low) {
  const double v = (static_cast<double>(high) * 0x1p32 + static_cast<double>(low) + 0.5) * 0x1p-64;
  return -std::log(-std::log1p(-std::fmin(v, 1 - 0x1p-53)));  // v may have rounded up to 1
}

// The noise of a token at a position.
inline double token_noise(uint64_t seed, int64_t position, int32_t id) {
  const auto index = static_cast<uint32_t>(id);
  return gumbel_from_bits(random_word(seed, position, Purpose::kTokenHigh, index),
                          random_word(seed, position, Purpose::kTokenLow, index));
}

// The seed of a request that brought none.
constexpr uint64_t derive_seed(uint64_t server_seed, uint64_t request_number) {
  const PhiloxCounter words =
      random_block(server_seed, static_cast<int64_t>(request_number), Purpose::kSeed, 0);
  return (static_cast<uint64_t>(words[0]) << 32) | words[1];
}

}  // namespace tandem::sampling
