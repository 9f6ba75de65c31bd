// An evaluation as JSON, for programs. Keys are listed in docs/evaluation.md.
#pragma once

#include <string>

#include "quantize/eval_gate.h"

namespace tandem::quantize {

// `gate` may be null.
std::string eval_json(const EvalResult& result, const GateResult* gate);

// "bf16", "fp8", "fp8_channel", "fp8_block".
const char* format_name(io::WeightFormat format);

}  // namespace tandem::quantize
