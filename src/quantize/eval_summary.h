// An evaluation in a few lines of text.
#pragma once

#include <string>

#include "quantize/eval_gate.h"

namespace tandem::quantize {

// One sentence a reader needs first: what was lost.
std::string eval_headline(const EvalResult& result);

// The headline, then text, acceptance and exact answers, and the gate's verdict (may be null).
std::string eval_summary(const EvalResult& result, const GateResult* gate);

}  // namespace tandem::quantize
