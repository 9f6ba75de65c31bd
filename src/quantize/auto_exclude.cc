#include "quantize/auto_exclude.h"

#include <algorithm>

namespace tandem::quantize {
namespace {

double sum_of(const std::vector<GroupCost>& groups) {
  double sum = 0;
  for (const GroupCost& group : groups) sum += std::max(0.0, group.cost);
  return sum;
}

}  // namespace

base::Result<AutoExclusion> exclude_costliest(std::vector<GroupCost> groups, double budget,
                                              const MeasureGroups& measure) {
  // Cheapest first: the costliest is taken from the back.
  std::ranges::stable_sort(groups, [](const GroupCost& a, const GroupCost& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.modules.front() > b.modules.front();
  });
  AutoExclusion result;
  TANDEM_ASSIGN_OR_RETURN(double measured, measure(groups));
  result.measured_before = measured;
  while (measured > budget && groups.size() > 1) {
    const double sum = sum_of(groups);
    const double per_cost = sum > 0 ? measured / sum : 0;
    do {
      result.excluded.push_back(std::move(groups.back()));
      groups.pop_back();
    } while (groups.size() > 1 && per_cost * sum_of(groups) > budget);
    TANDEM_ASSIGN_OR_RETURN(measured, measure(groups));
  }
  if (measured > budget)
    return base::invalid(
        "--auto-exclude {}: expected a budget that some quantized module can keep, got a cost of "
        "{:.3g} with only {} quantized; raise the budget",
        budget, measured, groups.front().modules.front());
  result.measured_after = measured;
  return result;
}

}  // namespace tandem::quantize
