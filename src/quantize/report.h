// quantization_report.json: how the scales of an export came about. No times, paths or thread
// counts, so that the same input gives the same bytes.
#pragma once

#include <string>

#include "quantize/quantize.h"

namespace tandem::quantize {

std::string report_json(const QuantizeOptions& options, const CalibrationRun& calibration,
                        const ModelPlan& plan, const std::optional<AutoExclusion>& auto_exclusion,
                        bool is_assistant);

}  // namespace tandem::quantize
