// Values as text: Python's str() and repr(), and json.dumps().
#pragma once

#include <string>
#include <string_view>

#include "text/jinja/limits.h"
#include "text/jinja/value.h"

namespace tandem::text::jinja {

// Appends to out under the 4 MiB cap, paying for the bytes.
void append_text(Rope& out, std::string_view piece, bool trusted, Meter& meter);
void append_text(Rope& out, const Rope& piece, Meter& meter);

std::string format_integer(Int number);
// Shortest digits that read back the same: 1.0, 1e+20, inf.
std::string format_float(double number);

// str(value): what `{{ value }}` prints.
RopePtr to_text(const Value& value, Meter& meter);

struct JsonStyle {
  std::string indent;  // of one level; only used when multiline
  bool multiline = false;
  bool ensure_ascii = false;
  bool sort_keys = false;
  Rope item_separator;
  Rope key_separator;
};
Rope to_json_text(const Value& value, const JsonStyle& style, Meter& meter);

}  // namespace tandem::text::jinja
