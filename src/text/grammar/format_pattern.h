// Spellings of the string formats that answers can be held to. Stricter than the formats themselves
// where a grammar cannot count (no 29th of February, no leap seconds).
#pragma once

#include <string>

#include "text/grammar/shape.h"

namespace tandem::text {

struct FormatPattern {
  std::string pattern;     // in the notation of Regex("..."); no quotes, no backslashes, ASCII only
  int64_t max_chars = -1;  // -1: no bound
};

FormatPattern format_pattern(StringFormat format);

}  // namespace tandem::text
