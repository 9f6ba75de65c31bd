// Which spellings of numbers lie between two bounds, as a pattern in the notation of Regex("...").
#pragma once

#include <optional>
#include <string>

#include "text/grammar/shape.h"

namespace tandem::text {

// Nothing when no number lies between the bounds. Spellings are JSON's: at most 18 digits before
// the point and 17 behind it; exponents only where there are no bounds.
std::optional<std::string> number_pattern(const NumberShape& shape);

}  // namespace tandem::text
