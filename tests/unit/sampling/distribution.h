// The specification of the sampler in plain loops, and the statistics to hold draws against it.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "sampling/candidates.h"

namespace tandem::sampling::test {

// Probabilities after temperature, top-k, top-p and min-p: a full sort and textbook formulas.
std::vector<double> naive_distribution(std::span<const float> logits, const Truncation& truncation);

// Chance of a chi-square statistic at least as large under `expected` (probabilities). Outcomes
// expected fewer than 5 times are pooled into one. 0 when an impossible outcome was seen.
double chi_square_p_value(std::span<const int64_t> counts, std::span<const double> expected);

std::vector<float> random_logits(std::mt19937_64& random, size_t vocab_size, float spread);

}  // namespace tandem::sampling::test
