#include "bench/statistics.h"

#include <gtest/gtest.h>

#include <vector>

namespace tandem::bench {
namespace {

TEST(StatisticsTest, PercentilesLieBetweenNeighboursAsNumpySays) {
  // numpy.percentile([15, 20, 35, 40, 50], q)
  const std::vector<double> values = {50, 15, 40, 20, 35};
  EXPECT_DOUBLE_EQ(percentile(values, 0), 15);
  EXPECT_DOUBLE_EQ(percentile(values, 40), 29);
  EXPECT_DOUBLE_EQ(percentile(values, 99), 49.6);
  EXPECT_DOUBLE_EQ(percentile(values, 100), 50);
  EXPECT_DOUBLE_EQ(median(values), 35);
  EXPECT_DOUBLE_EQ(median(std::vector<double>{1, 2}), 1.5);
}

TEST(StatisticsTest, MeanAndDeviation) {
  const std::vector<double> values = {2, 4, 4, 4, 5, 5, 7, 9};
  EXPECT_DOUBLE_EQ(mean(values), 5);
  EXPECT_DOUBLE_EQ(standard_deviation(values), 2);
}

TEST(StatisticsTest, NothingIsZero) {
  EXPECT_EQ(mean({}), 0);
  EXPECT_EQ(standard_deviation({}), 0);
  EXPECT_EQ(percentile({}, 99), 0);
}

}  // namespace
}  // namespace tandem::bench
