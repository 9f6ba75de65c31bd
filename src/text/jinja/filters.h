// Filters by family; builtins.h finds them by name.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "text/jinja/builtins.h"

namespace tandem::text::jinja {

std::span<const FilterEntry> text_filters();      // upper, trim, replace, tojson, ...
std::span<const FilterEntry> value_filters();     // default, int, round, ...
std::span<const FilterEntry> sequence_filters();  // list, first, sum, dictsort, ...
std::span<const FilterEntry> select_filters();    // map, select, rejectattr, ...

// The value under a dotted attribute path such as "function.name"; an undefined step becomes
// `fallback` when there is one. A null attribute is the item itself.
Value resolve_path(Interpreter& interpreter, const Value& item, const Value* attribute,
                   const Value* fallback = nullptr);
// Strings compare in lower case unless case_sensitive.
Value sort_key(Interpreter& interpreter, const Value& value, bool case_sensitive);

// Reads an optional argument as Python would pass it on.
bool flag(const Value* value, bool fallback);
int64_t integer_argument(std::string_view callee, const Value* value, int64_t fallback);

}  // namespace tandem::text::jinja
