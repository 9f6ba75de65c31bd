// The tests behind `is`.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "text/jinja/interpreter.h"
#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

template <Kind kKind>
bool is_kind(Interpreter&, const Value& input, const Arguments&) {
  return input.is(kKind);
}
bool is_defined(Interpreter&, const Value& input, const Arguments&) {
  return !input.is_undefined();
}
bool is_number(Interpreter&, const Value& input, const Arguments&) {
  return input.is_number();
}
bool is_true(Interpreter&, const Value& input, const Arguments&) {
  return input.is(Kind::kBool) && input.boolean();
}
bool is_false(Interpreter&, const Value& input, const Arguments&) {
  return input.is(Kind::kBool) && !input.boolean();
}

// Whatever has a length and subscripts: mappings and undefined values count as sequences.
bool is_sequence(Interpreter&, const Value& input, const Arguments&) {
  if (input.is(Kind::kSequence)) return input.sequence().kind <= SequenceKind::kRange;
  return input.is_string() || input.is(Kind::kDict) || input.is_undefined();
}

bool is_iterable(Interpreter&, const Value& input, const Arguments&) {
  return input.is(Kind::kSequence) || input.is_string() || input.is(Kind::kDict) ||
         input.is_undefined() || input.is(Kind::kLoop);
}

bool is_callable(Interpreter&, const Value& input, const Arguments&) {
  return input.is(Kind::kMacro) || input.is(Kind::kMethod) || input.is(Kind::kFunction);
}

const Value& only_argument(std::string_view name, const Arguments& arguments) {
  if (arguments.positional.size() != 1 || !arguments.named.empty()) {
    throw TemplateError(fmt::format("the test '{}' takes one argument", name));
  }
  return arguments.positional[0];
}

template <Op kOp>
bool compares(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return compare(kOp, input, only_argument("comparison", arguments), interpreter.meter());
}

bool is_same(Interpreter&, const Value& input, const Arguments& arguments) {
  const Value& other = only_argument("sameas", arguments);
  return input.kind() == other.kind() && equals_scalar(input, other);
}

Int remainder(Interpreter& interpreter, const Value& input, const Value& divisor) {
  const Value result = arithmetic(Op::kModulo, input, divisor, interpreter.meter());
  return result.is_integral() ? result.integral() : static_cast<Int>(result.number() != 0.0);
}
bool is_divisible(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return remainder(interpreter, input, only_argument("divisibleby", arguments)) == 0;
}
template <int kRest>
bool has_parity(Interpreter& interpreter, const Value& input, const Arguments&) {
  const Value rest = arithmetic(Op::kModulo, input, Value::integer(2), interpreter.meter());
  return equals_scalar(rest, Value::integer(kRest));
}

template <bool (*kIs)(char32_t), bool (*kIsNot)(char32_t)>
bool has_case(Interpreter& interpreter, const Value& input, const Arguments&) {
  const RopePtr text = interpreter.text_of(input);
  interpreter.meter().spend_text(text->size());
  bool found = false;
  for (size_t position = 0; position < text->size();) {
    const char32_t c = next_code_point(text->text(), position);
    if (kIsNot(c)) return false;
    found = found || kIs(c);
  }
  return found;
}

template <typename Entry, const Entry* (*kFind)(std::string_view)>
bool names_builtin(Interpreter&, const Value& input, const Arguments&) {
  return input.is_string() && kFind(input.str()) != nullptr;
}
bool is_escaped(Interpreter&, const Value&, const Arguments&) {
  return false;
}

constexpr TestEntry kTests[] = {{"defined", is_defined},
                                {"undefined", is_kind<Kind::kUndefined>},
                                {"none", is_kind<Kind::kNone>},
                                {"mapping", is_kind<Kind::kDict>},
                                {"sequence", is_sequence},
                                {"iterable", is_iterable},
                                {"string", is_kind<Kind::kString>},
                                {"boolean", is_kind<Kind::kBool>},
                                {"true", is_true},
                                {"false", is_false},
                                {"number", is_number},
                                {"integer", is_kind<Kind::kInt>},
                                {"float", is_kind<Kind::kFloat>},
                                {"callable", is_callable},
                                {"sameas", is_same},
                                {"eq", compares<Op::kEqual>},
                                {"equalto", compares<Op::kEqual>},
                                {"==", compares<Op::kEqual>},
                                {"ne", compares<Op::kNotEqual>},
                                {"!=", compares<Op::kNotEqual>},
                                {"lt", compares<Op::kLess>},
                                {"lessthan", compares<Op::kLess>},
                                {"<", compares<Op::kLess>},
                                {"le", compares<Op::kLessEqual>},
                                {"<=", compares<Op::kLessEqual>},
                                {"gt", compares<Op::kGreater>},
                                {"greaterthan", compares<Op::kGreater>},
                                {">", compares<Op::kGreater>},
                                {"ge", compares<Op::kGreaterEqual>},
                                {">=", compares<Op::kGreaterEqual>},
                                {"in", compares<Op::kIn>},
                                {"divisibleby", is_divisible},
                                {"odd", has_parity<1>},
                                {"even", has_parity<0>},
                                {"upper", has_case<is_upper, is_lower>},
                                {"lower", has_case<is_lower, is_upper>},
                                {"escaped", is_escaped},
                                {"filter", names_builtin<FilterEntry, find_filter>},
                                {"test", names_builtin<TestEntry, find_test>}};

}  // namespace

const TestEntry* find_test(std::string_view name) {
  const auto* entry = std::find_if(std::begin(kTests), std::end(kTests),
                                   [&](const TestEntry& test) { return test.name == name; });
  return entry == std::end(kTests) ? nullptr : entry;
}

}  // namespace tandem::text::jinja
