#include "quantize/eval_gate.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::quantize {
namespace {

std::vector<GateCheck> make_checks(const EvalResult& result, const GateBounds& bounds) {
  std::vector<GateCheck> checks;
  if (result.candidate && result.reference) {
    const speculation::AcceptanceStats& ours = result.candidate->all.stats;
    const speculation::AcceptanceStats& theirs = result.reference->all.stats;
    if (theirs.num_drafts > 0)
      checks.push_back({"mean acceptance length / reference",
                        ours.mean_acceptance_length() / theirs.mean_acceptance_length(),
                        bounds.min_acceptance_ratio, true});
    // One division: of two rates 0.05 may differ by more than 0.05.
    if (const TaskScore& all = result.reference->all; all.num_scored > 0)
      checks.push_back({"exact answers lost",
                        static_cast<double>(all.num_exact - result.candidate->all.num_exact) /
                            static_cast<double>(all.num_scored),
                        bounds.max_exact_drop, false});
  }
  if (result.text && result.text->comparison)
    checks.push_back({"KL per token", result.text->comparison->kl_mean, bounds.max_kl, false});
  return checks;
}

}  // namespace

GateResult judge(const EvalResult& result, const GateBounds& bounds) {
  GateResult gate;
  gate.checks = make_checks(result, bounds);
  gate.causes = find_causes(result);
  const bool any_defect = std::ranges::any_of(gate.causes, [](const Cause& c) { return c.defect; });
  gate.passed = !any_defect && std::ranges::all_of(gate.checks, &GateCheck::passed);
  if (gate.passed) {
    gate.causes.clear();  // nothing to explain
  } else if (gate.causes.empty()) {
    gate.causes.push_back(
        {"unknown",
         "no cause found in weights, scales, KV scales or positions: what is left is rounding, "
         "and the layers with the largest errors are the first to keep in BF16 "
         "(tandem quantize --auto-exclude)",
         false});
  }
  return gate;
}

std::string list_names(const std::vector<std::string>& names) {
  constexpr size_t kShown = 2;
  std::string list;
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i)
    list += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kShown) list += fmt::format(" and {} more", names.size() - kShown);
  return list;
}

}  // namespace tandem::quantize
