// Random numbers without state: a value is a function of (seed, position, purpose, index), so it
// depends neither on the batch nor on the slot nor on how many draws came before. Constant
// expressions, so that a device computes the same bits.
//
// Generator: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). The tests of sampling hold it against the published known answers.
#pragma once

#include <array>
#include <cstdint>

namespace tandem::core {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

constexpr PhiloxCounter philox4x32_10(PhiloxCounter counter, PhiloxKey key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53U;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57U;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

// What a number is for: numbers of two purposes are independent.
enum class Purpose : uint32_t {
  kTokenHigh = 0,  // upper half of a token's noise
  kTokenLow = 1,   // lower half
  kAccept = 2,     // accept test of a draft (sampled drafts, synthetic acceptance)
  kSeed = 3,       // seeds of requests that brought none
};

// Four words for indices 4 * block .. 4 * block + 3.
constexpr PhiloxCounter random_block(uint64_t seed, int64_t position, Purpose purpose,
                                     uint32_t block) {
  const auto p = static_cast<uint64_t>(position);
  return philox4x32_10({block, static_cast<uint32_t>(p), static_cast<uint32_t>(p >> 32),
                        static_cast<uint32_t>(purpose)},
                       {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

constexpr uint32_t random_word(uint64_t seed, int64_t position, Purpose purpose, uint32_t index) {
  return random_block(seed, position, purpose, index / 4)[index % 4];
}

// Uniform in [0, 1), a multiple of 2^-53; independent for every `index`.
constexpr double uniform(uint64_t seed, int64_t position, Purpose purpose, uint32_t index = 0) {
  const PhiloxCounter words = random_block(seed, position, purpose, index);
  const uint64_t bits = (static_cast<uint64_t>(words[0]) << 32) | words[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace tandem::core
