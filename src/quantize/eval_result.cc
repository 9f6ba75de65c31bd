#include "quantize/eval_result.h"

#include "core/e4m3.h"

namespace tandem::quantize {

void TaskScore::add(const TaskScore& other) {
  num_prompts += other.num_prompts;
  num_tokens += other.num_tokens;
  num_scored += other.num_scored;
  num_exact += other.num_exact;
  stats.add(other.stats);
}

double TaskScore::exact_rate() const {
  return num_scored == 0 ? 0 : static_cast<double>(num_exact) / static_cast<double>(num_scored);
}

double ModuleScore::scale_use() const {
  return static_input && input_scale > 0 ? input.amax / (core::kE4M3Max * input_scale) : 0;
}

}  // namespace tandem::quantize
