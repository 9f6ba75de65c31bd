// Python's operators on values. Everything that can be large pays the meter.
#pragma once

#include <cstdint>
#include <string>

#include "text/jinja/limits.h"
#include "text/jinja/value.h"

namespace tandem::text::jinja {

enum class Op : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

// Numbers, strings, booleans, None; other kinds are equal when they are the same object.
bool equals_scalar(const Value& a, const Value& b);
bool equals(const Value& a, const Value& b, Meter& meter);
// Any comparing operator, `in` included.
bool compare(Op op, const Value& a, const Value& b, Meter& meter);
bool contains(const Value& container, const Value& item, Meter& meter);

Value arithmetic(Op op, const Value& a, const Value& b, Meter& meter);
Value negate(const Value& value);

// "'name' is undefined"
std::string undefined_message(const Value& value);
// Refuses an undefined value where Python needs a real one.
inline void require_defined(const Value& value) {
  if (value.is_undefined()) throw TemplateError(undefined_message(value));
}

// What `value[start:stop:step]` selects; the bounds may be None.
struct SliceRange {
  int64_t start = 0;
  int64_t step = 1;
  size_t length = 0;
};
SliceRange resolve_slice(const Value& start, const Value& stop, const Value& step, size_t size);
Value slice_value(const Value& value, const Value& start, const Value& stop, const Value& step,
                  Meter& meter);

}  // namespace tandem::text::jinja
