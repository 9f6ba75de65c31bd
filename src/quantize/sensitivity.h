// What quantizing modules costs, measured with the models that serve: a target in KL per token on
// given text, an assistant in accepted tokens.
#pragma once

#include <vector>

#include "base/status.h"
#include "model/pair.h"
#include "quantize/auto_exclude.h"
#include "quantize/calibration.h"
#include "quantize/plan.h"
#include "quantize/progress.h"

namespace tandem::quantize {

// Mean KL(BF16 || variant) in nats per token, teacher-forced on the calibration texts.
base::Result<AutoExclusion> auto_exclude_target(const ops::Context& context,
                                                const model::Pair& pair,
                                                const CalibrationRun& calibration,
                                                const ModelPlan& plan, double budget,
                                                const Progress& progress);

// Share of the mean acceptance length that is lost (0.01: one percent), greedy, with the BF16
// target, on the first calibration prompts.
base::Result<AutoExclusion> auto_exclude_assistant(const ops::Context& context, model::Pair& pair,
                                                   const CalibrationRun& calibration,
                                                   const ModelPlan& plan, int num_draft_tokens,
                                                   double budget, const Progress& progress);

}  // namespace tandem::quantize
