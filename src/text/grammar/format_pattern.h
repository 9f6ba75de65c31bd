// Spellings of the string formats that answers can be held to. Stricter than the formats themselves
// where a grammar cannot count (no 29th of February, no leap seconds).
#pragma once

#include <string>
#include <vector>

#include "text/grammar/shape.h"

namespace tandem::text {

// A string is its parts, one behind the other.
struct FormatPart {
  std::string pattern;     // in the notation of Regex("..."); no quotes, no backslashes, ASCII only
  int64_t max_chars = -1;  // -1: no bound. A part with one can end nearly anywhere
};

std::vector<FormatPart> format_parts(StringFormat format);

}  // namespace tandem::text
