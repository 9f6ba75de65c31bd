// Is a candidate good enough, and if not, why: pure functions of what was measured.
#pragma once

#include <string>
#include <vector>

#include "quantize/eval_result.h"

namespace tandem::quantize {

// Measured with the demo pair (docs/evaluation.md): FP8 with the default scales keeps well inside.
struct GateBounds {
  double min_acceptance_ratio = 0.95;  // mean acceptance length, candidate / reference
  double max_kl = 0.02;                // nats per token, mean
  double max_exact_drop = 0.05;        // share of prompts with a known answer
};

// One bound. `value` fails when it lies beyond `bound`.
struct GateCheck {
  std::string name;  // "mean acceptance length / reference"
  double value = 0;
  double bound = 0;
  bool at_least = false;  // value >= bound passes; otherwise value <= bound does
  bool passed() const { return at_least ? value >= bound : value <= bound; }
};

// Something wrong with the candidate, as a sentence that names it.
struct Cause {
  std::string kind;  // "weights_factor", "scales_lost", ...: for programs
  std::string message;
  // Wrong whatever was measured: fails the gate by itself. Others only explain a failure.
  bool defect = true;
};

struct GateResult {
  std::vector<GateCheck> checks;
  std::vector<Cause> causes;
  bool passed = true;
};

GateResult judge(const EvalResult& result, const GateBounds& bounds);

// The causes alone, defects first; eval_causes.cc.
std::vector<Cause> find_causes(const EvalResult& result);

// "layers.0.mlp.up_proj, layers.0.mlp.down_proj and 5 more".
std::string list_names(const std::vector<std::string>& names);

}  // namespace tandem::quantize
