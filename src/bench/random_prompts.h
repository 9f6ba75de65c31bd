// Prompts of random token ids: what a request costs, whatever it says.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace tandem::bench {

// A sequence of numbers keyed by a seed; the same on every machine.
class RandomNumbers {
 public:
  explicit RandomNumbers(uint64_t seed) : state_(seed) {}
  uint64_t next();
  double uniform();                            // [0, 1)
  int64_t between(int64_t low, int64_t high);  // both included
  double normal();
  double gamma(double shape);  // scale 1; shape > 0

 private:
  uint64_t state_;
};

struct RandomLengths {
  int64_t input_len = 1024;
  int64_t output_len = 128;
  double range_ratio = 0;  // lengths from len * (1 - ratio) to len * (1 + ratio)
  int64_t prefix_len = 0;  // tokens that begin every prompt, beyond input_len
};

struct RandomPrompt {
  std::vector<int32_t> ids;
  int64_t output_len = 0;
};

base::Status check_lengths(const RandomLengths& lengths);

// Ids from 0 to vocab_size - 1 but those of `excluded`.
std::vector<RandomPrompt> random_prompts(int64_t count, const RandomLengths& lengths,
                                         int64_t vocab_size, std::span<const int32_t> excluded,
                                         uint64_t seed);

}  // namespace tandem::bench
