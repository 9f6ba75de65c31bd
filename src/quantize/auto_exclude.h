// Which modules stay BF16 so that quantization costs no more than a budget. Pure arithmetic: how a
// cost is measured is the caller's (sensitivity.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem::quantize {

// Projections that engines fuse, and what quantizing them alone costs.
struct GroupCost {
  std::vector<std::string> modules;
  double cost = 0;
};

struct AutoExclusion {
  std::vector<GroupCost> excluded;  // costliest first
  double measured_before = 0;       // everything quantized
  double measured_after = 0;        // without the excluded ones
};

// The cost of quantizing all these groups together.
using MeasureGroups = std::function<base::Result<double>(const std::vector<GroupCost>& quantized)>;

// Excludes the costliest groups until what is left is measured to cost at most `budget`. Between
// measurements it goes on until the sum of the single costs, scaled to the last measurement, says
// so: costs of groups need not add up. Fails when even one group left is over the budget.
base::Result<AutoExclusion> exclude_costliest(std::vector<GroupCost> groups, double budget,
                                              const MeasureGroups& measure);

}  // namespace tandem::quantize
