// An evaluation as one HTML page that needs nothing else: no script, no request, inline SVG.
#pragma once

#include <string>

#include "quantize/eval_gate.h"

namespace tandem::quantize {

// `gate` may be null (no reference).
std::string eval_html(const EvalResult& result, const GateResult* gate);

}  // namespace tandem::quantize
