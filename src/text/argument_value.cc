#include "text/argument_value.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/ascii.h"
#include "io/json.h"

namespace tandem::text {
namespace {

using nlohmann::json;
using Types = std::vector<std::string>;

constexpr std::string_view kSpaces = " \t\r\n";

bool has(const Types& types, std::string_view type) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  append_json_escaped(out, text);
  out += '"';
  return out;
}

// True if `value` is of one of the types; a whole number is of type integer however it is written.
bool matches(const json& value, const Types& types) {
  if (value.is_number()) {
    const double number = value.get<double>();
    return has(types, "number") || (has(types, "integer") && number == std::floor(number));
  }
  if (value.is_boolean()) return has(types, "boolean");
  if (value.is_null()) return has(types, "null");
  if (value.is_string()) return has(types, "string");
  return has(types, value.is_array() ? "array" : "object");
}

// The text as written, except that an integer written as 5.0 loses its fraction.
std::string write_number(const json& value, std::string_view text, const Types& types) {
  const bool as_integer = has(types, "integer") && !has(types, "number");
  if (!as_integer || value.is_number_integer()) return std::string(text);
  const double number = value.get<double>();
  if (number != std::floor(number) || std::fabs(number) > 9007199254740992.0)
    return std::string(text);
  return std::to_string(static_cast<int64_t>(number));
}

// Bounded: the text comes from a model. A broken or too deep text is discarded.
json parse_value(std::string_view text) {
  auto value = io::parse_json(text, "arguments");
  return value ? std::move(*value) : json(json::value_t::discarded);
}

// Spellings of other languages, taken only where the schema asks for the type.
json parse_foreign_word(std::string_view text, const Types& types) {
  const std::string word = base::lower_case(text);
  if (has(types, "boolean") && (word == "true" || word == "false")) return word == "true";
  if (has(types, "null") && (word == "null" || word == "none")) return nullptr;
  return json::value_t::discarded;
}

}  // namespace

std::string_view trim_spaces(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

void append_json_escaped(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  constexpr std::string_view kSpecial = "\"\\\b\f\n\r\t";
  constexpr std::string_view kNames = "\"\\bfnrt";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const size_t special = kSpecial.find(c);
    if (special != std::string_view::npos) {
      out += '\\';
      out += kNames[special];
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
}

bool stays_string(const Types& types) {
  return types.empty() || has(types, "string");
}

std::string convert_bare_value(std::string_view text, const Types& types) {
  text = trim_spaces(text);
  if (text == "null") return "null";
  const json value = parse_value(text);
  const bool scalar = !value.is_discarded() && !value.is_structured();
  if (scalar && (types.empty() || matches(value, types)))
    return value.is_number() ? write_number(value, text, types) : std::string(text);
  const json word = parse_foreign_word(text, types);
  if (!word.is_discarded()) return word.dump();
  // A value that the schema does not foresee stays what it is, unless it may be a string.
  if (scalar && value.is_string()) return std::string(text);
  if (scalar && !has(types, "string")) return std::string(text);
  return quoted(text);
}

std::string convert_quoted_value(std::string_view text, const Types& types) {
  const std::string_view trimmed = trim_spaces(text);
  const json value = parse_value(trimmed);
  if (!value.is_discarded() && matches(value, types))
    return value.is_number() ? write_number(value, trimmed, types) : std::string(trimmed);
  const json word = parse_foreign_word(trimmed, types);
  return word.is_discarded() ? quoted(text) : word.dump();
}

}  // namespace tandem::text
