#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "text/jinja/operators.h"
#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

constexpr std::string_view symbol_of(Op op) {
  constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

[[noreturn]] void fail_operands(Op op, const Value& a, const Value& b) {
  require_defined(a);
  require_defined(b);
  if (op == Op::kAdd && a.is_string()) {
    throw TemplateError(fmt::format("can only concatenate str (not \"{}\") to str", type_name(b)));
  }
  throw TemplateError(fmt::format("unsupported operand types for {}: '{}' and '{}'", symbol_of(op),
                                  type_name(a), type_name(b)));
}

[[noreturn]] void fail_overflow() {
  throw TemplateError("an integer grows past 127 bits");
}

// `compute` is one of the checked builtins of the compiler.
template <typename Compute>
Value checked(Compute compute, Int a, Int b) {
  Int result = 0;
  if (compute(a, b, &result)) fail_overflow();
  return result;
}

Value subtract(Int a, Int b) {
  return checked([](Int x, Int y, Int* z) { return __builtin_sub_overflow(x, y, z); }, a, b);
}

Value integer_power(Int base, Int exponent) {
  if (exponent < 0) return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  Int result = 1;
  if (base == 0 || base == 1) return exponent == 0 ? Int{1} : base;
  if (base == -1) return exponent % 2 == 0 ? Int{1} : Int{-1};
  if (exponent > 127) fail_overflow();
  for (Int i = 0; i < exponent; ++i) {
    if (__builtin_mul_overflow(result, base, &result)) fail_overflow();
  }
  return result;
}

Value integer_arithmetic(Op op, Int a, Int b) {
  const bool divides = op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo;
  if (divides && b == 0) throw TemplateError("division by zero");
  switch (op) {
    case Op::kAdd:
      return checked([](Int x, Int y, Int* z) { return __builtin_add_overflow(x, y, z); }, a, b);
    case Op::kSubtract:
      return subtract(a, b);
    case Op::kMultiply:
      return checked([](Int x, Int y, Int* z) { return __builtin_mul_overflow(x, y, z); }, a, b);
    case Op::kDivide:
      return static_cast<double>(a) / static_cast<double>(b);
    case Op::kFloorDivide:
      if (b == -1) return subtract(0, a);
      return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
    case Op::kModulo:
      if (b == -1) return Int{0};
      return a % b + ((a % b != 0 && (a % b < 0) != (b < 0)) ? b : 0);
    default:
      return integer_power(a, b);
  }
}

double python_modulo(double a, double b) {
  double remainder = std::fmod(a, b);
  if (remainder != 0.0) {
    if ((b < 0) != (remainder < 0)) remainder += b;
  } else {
    remainder = std::copysign(0.0, b);
  }
  return remainder;
}

Value float_arithmetic(Op op, double a, double b) {
  const bool divides = op == Op::kDivide || op == Op::kFloorDivide || op == Op::kModulo;
  if (divides && b == 0.0) throw TemplateError("float division by zero");
  switch (op) {
    case Op::kAdd:
      return a + b;
    case Op::kSubtract:
      return a - b;
    case Op::kMultiply:
      return a * b;
    case Op::kDivide:
      return a / b;
    case Op::kFloorDivide:
      return std::floor((a - python_modulo(a, b)) / b + 0.5);
    case Op::kModulo:
      return python_modulo(a, b);
    default:
      if (a == 0.0 && b < 0) throw TemplateError("0.0 cannot be raised to a negative power");
      if (a < 0 && b != std::floor(b)) throw TemplateError("complex numbers are not supported");
      return std::pow(a, b);
  }
}

Value repeat(const Value& value, Int count, Meter& meter) {
  const size_t unit = value.is_string() ? value.rope().size() : value.sequence().size();
  if (count <= 0 || unit == 0) {
    return value.is_string() ? Value::text("") : make_sequence(value.sequence().kind, {});
  }
  if (count > static_cast<Int>(kMaxTextBytes) ||
      unit * static_cast<size_t>(count) > kMaxTextBytes) {
    throw TemplateError("a repeated value grows past its limit");
  }
  const auto times = static_cast<size_t>(count);
  if (value.is_string()) {
    meter.spend_text(unit * times);
    meter.spend_items(times);
    Rope result;
    for (size_t i = 0; i < times; ++i) result.append(value.rope());
    return Value::text(std::move(result));
  }
  meter.spend_items(unit * times);
  std::vector<Value> items;
  items.reserve(unit * times);
  for (size_t i = 0; i < times; ++i) {
    items.insert(items.end(), value.sequence().items.begin(), value.sequence().items.end());
  }
  return make_sequence(value.sequence().kind, std::move(items));
}

bool is_repeatable(const Value& value) {
  return value.is_string() ||
         (value.is(Kind::kSequence) && value.sequence().kind <= SequenceKind::kTuple);
}

Value add_collections(const Value& a, const Value& b, Meter& meter) {
  if (a.is_string() && b.is_string()) {
    meter.spend_text(a.rope().size() + b.rope().size());
    Rope result = a.rope();
    result.append(b.rope());
    return Value::text(std::move(result));
  }
  if (!a.is(Kind::kSequence) || !b.is(Kind::kSequence) || a.sequence().kind != b.sequence().kind ||
      a.sequence().kind > SequenceKind::kTuple) {
    fail_operands(Op::kAdd, a, b);
  }
  const auto& right = b.sequence().items;
  meter.spend_items(a.sequence().size() + right.size());
  std::vector<Value> items = a.sequence().items;
  items.insert(items.end(), right.begin(), right.end());
  return make_sequence(a.sequence().kind, std::move(items));
}

int64_t slice_bound(const Value& value) {
  if (!value.is_integral()) {
    require_defined(value);
    throw TemplateError("slice indices must be integers or None");
  }
  constexpr Int kFar = Int{1} << 40;
  return static_cast<int64_t>(std::clamp(value.integral(), -kFar, kFar));
}

}  // namespace

Value arithmetic(Op op, const Value& a, const Value& b, Meter& meter) {
  if (a.is_integral() && b.is_integral()) {
    return integer_arithmetic(op, a.integral(), b.integral());
  }
  if (a.is_number() && b.is_number()) return float_arithmetic(op, a.number(), b.number());
  if (op == Op::kAdd) return add_collections(a, b, meter);
  if (op == Op::kMultiply && is_repeatable(a) && b.is_integral()) {
    return repeat(a, b.integral(), meter);
  }
  if (op == Op::kMultiply && is_repeatable(b) && a.is_integral()) {
    return repeat(b, a.integral(), meter);
  }
  if (op == Op::kModulo && a.is_string()) {
    throw TemplateError("formatting with % is not supported; use ~ or join");
  }
  fail_operands(op, a, b);
}

Value negate(const Value& value) {
  if (value.is(Kind::kFloat)) return -value.number();
  if (value.is_integral()) return subtract(0, value.integral());
  require_defined(value);
  throw TemplateError(fmt::format("bad operand type for unary -: '{}'", type_name(value)));
}

SliceRange resolve_slice(const Value& start, const Value& stop, const Value& step, size_t size) {
  const auto length = static_cast<int64_t>(size);
  SliceRange range;
  range.step = step.is_none() ? 1 : slice_bound(step);
  if (range.step == 0) throw TemplateError("slice step cannot be zero");
  const int64_t low = range.step > 0 ? 0 : -1;
  const int64_t high = range.step > 0 ? length : length - 1;
  const auto resolve = [&](const Value& bound, int64_t fallback) {
    if (bound.is_none()) return fallback;
    int64_t position = slice_bound(bound);
    if (position < 0) position += length;
    return std::clamp(position, low, high);
  };
  range.start = resolve(start, range.step > 0 ? low : high);
  const int64_t end = resolve(stop, range.step > 0 ? high : low);
  const int64_t distance = range.step > 0 ? end - range.start : range.start - end;
  const int64_t stride = range.step > 0 ? range.step : -range.step;
  if (distance > 0) range.length = static_cast<size_t>((distance + stride - 1) / stride);
  return range;
}

Value slice_value(const Value& value, const Value& start, const Value& stop, const Value& step,
                  Meter& meter) {
  if (value.is_string()) {
    const Rope& rope = value.rope();
    meter.spend_text(2 * std::min(rope.size(), kMaxTextBytes / 2));
    std::vector<size_t> offsets;  // byte offset of every character, and the end
    for (size_t position = 0; position < rope.size(); next_code_point(rope.text(), position)) {
      offsets.push_back(position);
    }
    offsets.push_back(rope.size());
    meter.spend_items(offsets.size() / 16);
    const SliceRange range = resolve_slice(start, stop, step, offsets.size() - 1);
    const auto first = static_cast<size_t>(range.start);
    if (range.length == 0) return Value::text("");
    if (range.step == 1) {
      return Value::text(rope.slice(offsets[first], offsets[first + range.length]));
    }
    meter.spend_items(range.length);
    Rope result;
    int64_t index = range.start;
    for (size_t i = 0; i < range.length; ++i, index += range.step) {
      const auto at = static_cast<size_t>(index);
      result.append(rope, offsets[at], offsets[at + 1]);
    }
    return Value::text(std::move(result));
  }
  if (!value.is(Kind::kSequence) || value.sequence().kind > SequenceKind::kRange) {
    require_defined(value);
    throw TemplateError(fmt::format("'{}' object cannot be sliced", type_name(value)));
  }
  const Sequence& sequence = value.sequence();
  const SliceRange range = resolve_slice(start, stop, step, sequence.size());
  if (sequence.kind == SequenceKind::kRange) {
    return make_range(sequence.start + sequence.step * range.start, sequence.step * range.step,
                      range.length);
  }
  meter.spend_items(range.length);
  std::vector<Value> items;
  items.reserve(range.length);
  int64_t index = range.start;
  for (size_t i = 0; i < range.length; ++i, index += range.step) {
    items.push_back(sequence.items[static_cast<size_t>(index)]);
  }
  return make_sequence(sequence.kind, std::move(items));
}

}  // namespace tandem::text::jinja
