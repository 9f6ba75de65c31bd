#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/rope_ops.h"

namespace tandem::text::jinja {
namespace {

Value filter_default(Interpreter&, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("default", arguments, {"default_value", "boolean"});
  const bool replaces = input.is_undefined() || (flag(bound[1], false) && !truthy(input));
  if (!replaces) return input;
  return bound[0] == nullptr ? Value::text("") : *bound[0];
}

std::string stripped_digits(Interpreter& interpreter, const Value& input) {
  std::string text = strip(input.rope(), nullptr, Side::kBoth, interpreter.meter()).text();
  // Python allows single underscores between digits.
  for (size_t i = 1; i + 1 < text.size(); ++i) {
    const auto is_digit = [&](size_t at) { return text[at] >= '0' && text[at] <= '9'; };
    if (text[i] == '_' && is_digit(i - 1) && is_digit(i + 1)) text.erase(i, 1);
  }
  return text;
}

std::optional<double> parse_float(Interpreter& interpreter, const Value& input) {
  const std::string text = stripped_digits(interpreter, input);
  if (text.empty() || text.find_first_of("xXpP") != std::string::npos) return std::nullopt;
  if (text.find('(') != std::string::npos) return std::nullopt;  // C's nan(...)
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size()) return std::nullopt;
  return number;
}

std::optional<Int> parse_int(Interpreter& interpreter, const Value& input, int base) {
  const std::string text = stripped_digits(interpreter, input);
  const char* begin = text.c_str();
  const char* end = begin + text.size();
  if (begin != end && *begin == '+') ++begin;
  if (begin != end && *begin == '-' && begin != text.c_str()) return std::nullopt;  // "+-1"
  int64_t number = 0;
  const auto result = std::from_chars(begin, end, number, base);
  if (result.ec == std::errc::result_out_of_range) {
    throw TemplateError(fmt::format("int: '{}' is too large", text));
  }
  if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return Int{number};
}

std::optional<Int> truncate(double number) {
  if (!std::isfinite(number)) return std::nullopt;
  if (std::fabs(number) > 1e37) throw TemplateError("int: the number is too large");
  return static_cast<Int>(number);
}

Value filter_int(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("int", arguments, {"default", "base"});
  const Value fallback = bound[0] == nullptr ? Value::integer(0) : *bound[0];
  require_defined(input);
  if (input.is_integral()) return input.integral();
  std::optional<Int> result;
  if (input.is(Kind::kFloat)) result = truncate(input.number());
  if (input.is_string()) {
    const int64_t base = integer_argument("int", bound[1], 10);
    if (base < 2 || base > 36) throw TemplateError("int: the base must be between 2 and 36");
    result = parse_int(interpreter, input, static_cast<int>(base));
    if (!result) {
      const std::optional<double> number = parse_float(interpreter, input);
      if (number) result = truncate(*number);
    }
  }
  return result ? Value(*result) : fallback;
}

Value filter_float(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("float", arguments, {"default"});
  require_defined(input);
  if (input.is_number()) return input.number();
  if (input.is_string()) {
    const std::optional<double> number = parse_float(interpreter, input);
    if (number) return *number;
  }
  return bound[0] == nullptr ? Value(0.0) : *bound[0];
}

void require_number(std::string_view callee, const Value& value) {
  if (value.is_number()) return;
  require_defined(value);
  throw TemplateError(fmt::format("{}: expected a number, got {}", callee, type_name(value)));
}

Value filter_abs(Interpreter&, const Value& input, const Arguments& arguments) {
  bind_arguments("abs", arguments, {});
  require_number("abs", input);
  if (input.is(Kind::kFloat)) return std::fabs(input.number());
  return input.integral() < 0 ? negate(input) : Value(input.integral());
}

// Half to even on the exact decimal value, which is what printf rounds by.
double round_decimal(double number, int64_t precision) {
  if (!std::isfinite(number)) return number;
  if (precision >= 0) {
    const int digits = static_cast<int>(std::min<int64_t>(precision, 340));
    return std::strtod(fmt::format("{:.{}f}", number, digits).c_str(), nullptr);
  }
  const double scale = std::pow(10.0, static_cast<double>(std::min<int64_t>(-precision, 308)));
  return std::nearbyint(number / scale) * scale;
}

Value filter_round(Interpreter&, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("round", arguments, {"precision", "method"});
  require_number("round", input);
  const int64_t precision = integer_argument("round", bound[0], 0);
  const std::string method =
      bound[1] != nullptr && bound[1]->is_string() ? bound[1]->str() : "common";
  if (method == "common") {
    if (input.is(Kind::kFloat)) return round_decimal(input.number(), precision);
    if (precision >= 0) return input.integral();
    throw TemplateError("round: a negative precision of an integer is not supported");
  }
  if (method != "ceil" && method != "floor") {
    throw TemplateError("round: method must be common, ceil or floor");
  }
  const double scale =
      std::pow(10.0, static_cast<double>(std::clamp<int64_t>(precision, -300, 300)));
  const double scaled = input.number() * scale;
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

constexpr FilterEntry kFilters[] = {{"default", filter_default}, {"d", filter_default},
                                    {"int", filter_int},         {"float", filter_float},
                                    {"abs", filter_abs},         {"round", filter_round}};

}  // namespace

std::span<const FilterEntry> value_filters() {
  return kFilters;
}

bool flag(const Value* value, bool fallback) {
  return value == nullptr ? fallback : truthy(*value);
}

int64_t integer_argument(std::string_view callee, const Value* value, int64_t fallback) {
  if (value == nullptr || value->is_none()) return fallback;
  if (!value->is_integral()) {
    throw TemplateError(fmt::format("{}: expected int, got {}", callee, type_name(*value)));
  }
  constexpr Int kFar = Int{1} << 40;
  return static_cast<int64_t>(std::clamp(value->integral(), -kFar, kFar));
}

}  // namespace tandem::text::jinja
