#include "quantize/auto_exclude.h"

#include <gtest/gtest.h>

namespace tandem::quantize {
namespace {

std::vector<GroupCost> groups(const std::vector<double>& costs) {
  std::vector<GroupCost> result;
  for (size_t i = 0; i < costs.size(); ++i) result.push_back({{fmt::format("m{}", i)}, costs[i]});
  return result;
}

// Costs that add up, times a factor that single measurements do not show.
MeasureGroups additive(double factor, int& calls) {
  return [factor, &calls](const std::vector<GroupCost>& quantized) -> base::Result<double> {
    ++calls;
    double sum = 0;
    for (const GroupCost& group : quantized) sum += group.cost;
    return factor * sum;
  };
}

TEST(AutoExclude, NothingWithinTheBudget) {
  int calls = 0;
  const auto result = exclude_costliest(groups({0.1, 0.2}), 0.3001, additive(1, calls));
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->excluded.empty());
  EXPECT_EQ(calls, 1);
  EXPECT_DOUBLE_EQ(result->measured_after, result->measured_before);
}

TEST(AutoExclude, TakesTheCostliestFirst) {
  int calls = 0;
  const auto result = exclude_costliest(groups({0.1, 5.0, 0.2, 3.0}), 0.5, additive(1, calls));
  ASSERT_TRUE(result);
  ASSERT_EQ(result->excluded.size(), size_t{2});
  EXPECT_EQ(result->excluded[0].modules.front(), "m1");
  EXPECT_EQ(result->excluded[1].modules.front(), "m3");
  EXPECT_EQ(calls, 2) << "one measurement before, one after";
  EXPECT_NEAR(result->measured_after, 0.3, 1e-12);
  EXPECT_NEAR(result->measured_before, 8.3, 1e-12);
}

TEST(AutoExclude, GoesOnWhenTheSumPromisedTooMuch) {
  // What is left costs more together than alone: the estimate says stop, the measurement does not.
  const MeasureGroups measure =
      [](const std::vector<GroupCost>& quantized) -> base::Result<double> {
    return quantized.size() == 4 ? 4.0 : quantized.size() == 3 ? 2.0 : 0.5;
  };
  const auto result = exclude_costliest(groups({0.1, 0.1, 0.1, 3.7}), 1.4, measure);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->excluded.size(), size_t{2});
  EXPECT_EQ(result->measured_after, 0.5);
}

TEST(AutoExclude, EqualCostsAreTakenInOrderOfNames) {
  int calls = 0;
  const auto result = exclude_costliest(groups({1, 1, 1}), 2.0, additive(1, calls));
  ASSERT_TRUE(result);
  ASSERT_EQ(result->excluded.size(), size_t{1});
  EXPECT_EQ(result->excluded[0].modules.front(), "m0");
}

TEST(AutoExclude, ABudgetNobodyCanKeepIsRefused) {
  const MeasureGroups measure = [](const std::vector<GroupCost>&) -> base::Result<double> {
    return 1.0;
  };
  const auto result = exclude_costliest(groups({1, 2}), 0.0, measure);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("raise the budget"), std::string::npos);
}

TEST(AutoExclude, AFailedMeasurementIsPassedOn) {
  const MeasureGroups measure = [](const std::vector<GroupCost>&) -> base::Result<double> {
    return base::invalid("stop");
  };
  EXPECT_FALSE(exclude_costliest(groups({1}), 0.5, measure));
}

}  // namespace
}  // namespace tandem::quantize
