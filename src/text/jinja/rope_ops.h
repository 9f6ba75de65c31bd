// Python's str methods on ropes: the result remembers the origin of every byte.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/jinja/limits.h"
#include "text/jinja/rope.h"

namespace tandem::text::jinja {

Rope to_upper(const Rope& rope, Meter& meter);
Rope to_lower(const Rope& rope, Meter& meter);
// str.capitalize(): the first character in title case, the rest in lower case.
Rope capitalize(const Rope& rope, Meter& meter);
// str.title(): every run of letters capitalized.
Rope title_case(const Rope& rope, Meter& meter);
// The title filter: words begin after blanks, hyphens and opening brackets only.
Rope title_words(const Rope& rope, Meter& meter);
Rope escape_html(const Rope& rope, Meter& meter);
Rope reverse_text(const Rope& rope, Meter& meter);

// Where `wanted` first stands at or behind `from`, or last stands at all; npos when nowhere.
// Linear for every input, which std::string::find is not.
size_t find_text(std::string_view text, std::string_view wanted, size_t from = 0);
size_t rfind_text(std::string_view text, std::string_view wanted);

enum class Side : uint8_t { kBoth, kLeft, kRight };
// `characters` null strips white space.
Rope strip(const Rope& rope, const Rope* characters, Side side, Meter& meter);

// str.split(separator, max_splits); `separator` null splits at white space; max_splits < 0: all.
std::vector<Rope> split(const Rope& rope, const Rope* separator, int64_t max_splits, Meter& meter);
std::vector<Rope> rsplit(const Rope& rope, const Rope* separator, int64_t max_splits, Meter& meter);
std::vector<Rope> split_lines(const Rope& rope, bool keep_ends, Meter& meter);
// At most `count` replacements; count < 0: all.
Rope replace(const Rope& rope, const Rope& old_text, const Rope& new_text, int64_t count,
             Meter& meter);
Rope join(const std::vector<const Rope*>& pieces, const Rope& separator, Meter& meter);

}  // namespace tandem::text::jinja
