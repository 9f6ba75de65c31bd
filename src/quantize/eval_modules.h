// A candidate's projections beside the reference's: the weights they stand for, and what they make
// of the same inputs.
#pragma once

#include <vector>

#include "base/status.h"
#include "io/checkpoint.h"
#include "model/linear.h"
#include "quantize/eval_observer.h"
#include "quantize/eval_result.h"
#include "quantize/progress.h"

namespace tandem::quantize {

// One row of a projection's weights, dequantized: out [in].
void dequantize_row(const io::LinearWeights& weights, int64_t row, std::vector<float>& out);

// factor, correlation and weight_error of two projections of one shape. Large weights are judged by
// an even choice of their rows.
void compare_weights(const io::LinearWeights& candidate, const io::LinearWeights& reference,
                     bool swap_halves, ModuleScore& score);

struct ModulePair {
  const io::Checkpoint* candidate = nullptr;
  const io::Checkpoint* reference = nullptr;  // null: formats, scales and ranges only
  const EvalObserver* observer = nullptr;     // of the reference's runs, else of the candidate's
  bool assistant = false;
};

// Every projection of the candidate, in layer order, and its token embedding. Refused: a reference
// of other shapes.
base::Result<std::vector<ModuleScore>> compare_modules(const ops::Context& context,
                                                       const ModulePair& pair,
                                                       const model::ModelOptions& options,
                                                       const Progress& progress);

std::vector<KvScore> kv_scores(const io::Checkpoint& candidate, const EvalObserver& observer);

}  // namespace tandem::quantize
