// Means and percentiles of measured times. Pure arithmetic.
#pragma once

#include <span>
#include <vector>

namespace tandem::bench {

// All of them 0 for an empty list.
double mean(std::span<const double> values);
double standard_deviation(std::span<const double> values);  // of the values themselves
double median(std::span<const double> values);
// Between the two nearest values in proportion, as numpy does. 0 <= percent <= 100.
double percentile(std::span<const double> values, double percent);

// Values of a sorted list; for many percentiles of one list.
double percentile_of_sorted(std::span<const double> sorted, double percent);
std::vector<double> sorted(std::span<const double> values);

}  // namespace tandem::bench
