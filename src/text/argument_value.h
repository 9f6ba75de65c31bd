// Single values of tool arguments as JSON text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

// Appends the inside of a JSON string literal, without the quotes.
void append_json_escaped(std::string& out, std::string_view text);

// The JSON text of a value written without quotes. `types` are the schema's (empty: none known).
// A number, true, false or null stays what it is where the types allow it.
std::string convert_bare_value(std::string_view text, const std::vector<std::string>& types);

// The JSON text of a quoted string where the schema has no "string" among its types.
std::string convert_quoted_value(std::string_view text, const std::vector<std::string>& types);

// Whether a quoted string is written as a string whatever it says.
bool stays_string(const std::vector<std::string>& types);

std::string_view trim_spaces(std::string_view text);

}  // namespace tandem::text
