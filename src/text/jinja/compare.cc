#include <fmt/format.h>

#include <algorithm>
#include <compare>

#include "text/jinja/operators.h"
#include "text/jinja/rope_ops.h"

namespace tandem::text::jinja {
namespace {

bool sequences_equal(const Sequence& a, const Sequence& b, Meter& meter) {
  if (a.kind != b.kind || a.size() != b.size()) return false;
  if (a.kind == SequenceKind::kGenerator || a.kind == SequenceKind::kView) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equals(a.at(i), b.at(i), meter)) return false;
  }
  return true;
}

bool dicts_equal(const Dict& a, const Dict& b, Meter& meter) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    meter.spend_items(1 + b.entries.size() / 8);
    const Value* other = b.find(key);
    if (other == nullptr || !equals(value, *other, meter)) return false;
  }
  return true;
}

constexpr std::string_view symbol_of(Op op) {
  switch (op) {
    case Op::kLess:
      return "<";
    case Op::kLessEqual:
      return "<=";
    case Op::kGreater:
      return ">";
    default:
      return ">=";
  }
}

std::partial_ordering order(Op op, const Value& a, const Value& b, Meter& meter) {
  meter.spend(1);
  if (a.is_integral() && b.is_integral()) {
    return a.integral() < b.integral()   ? std::partial_ordering::less
           : b.integral() < a.integral() ? std::partial_ordering::greater
                                         : std::partial_ordering::equivalent;
  }
  if (a.is_number() && b.is_number()) return a.number() <=> b.number();
  if (a.is_string() && b.is_string()) {
    meter.spend_text(std::min(a.rope().size(), b.rope().size()));
    return a.str().compare(b.str()) <=> 0;  // UTF-8 sorts like its characters
  }
  if (a.is(Kind::kSequence) && b.is(Kind::kSequence) && a.sequence().kind == b.sequence().kind &&
      a.sequence().kind <= SequenceKind::kTuple) {
    const auto& left = a.sequence().items;
    const auto& right = b.sequence().items;
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      if (!equals(left[i], right[i], meter)) return order(op, left[i], right[i], meter);
    }
    return left.size() <=> right.size();
  }
  require_defined(a);
  require_defined(b);
  throw TemplateError(fmt::format("'{}' not supported between instances of '{}' and '{}'",
                                  symbol_of(op), type_name(a), type_name(b)));
}

}  // namespace

std::string undefined_message(const Value& value) {
  const RopePtr& name = value.as<Undefined>().name;
  return name == nullptr ? "a value is undefined" : fmt::format("'{}' is undefined", name->text());
}

bool equals_scalar(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integral() == b.integral();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return a.rope_ptr() == b.rope_ptr() || a.str() == b.str();
    case Kind::kSequence:
      return &a.sequence() == &b.sequence();
    case Kind::kDict:
      return &a.dict() == &b.dict();
    case Kind::kNamespace:
      return a.as<std::shared_ptr<Namespace>>() == b.as<std::shared_ptr<Namespace>>();
    case Kind::kMacro:
      return a.as<std::shared_ptr<const Macro>>() == b.as<std::shared_ptr<const Macro>>();
    case Kind::kFunction:
      return a.as<Function>() == b.as<Function>();
    default:
      return false;
  }
}

bool equals(const Value& a, const Value& b, Meter& meter) {
  meter.spend(1);
  if (equals_scalar(a, b)) {
    if (a.is_string()) meter.spend_text(a.rope().size());
    return true;
  }
  if (a.is(Kind::kSequence) && b.is(Kind::kSequence)) {
    return sequences_equal(a.sequence(), b.sequence(), meter);
  }
  if (a.is(Kind::kDict) && b.is(Kind::kDict)) return dicts_equal(a.dict(), b.dict(), meter);
  return false;
}

bool contains(const Value& container, const Value& item, Meter& meter) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is_string()) {
        require_defined(item);
        throw TemplateError(
            fmt::format("'in <string>' requires string as left operand, not {}", type_name(item)));
      }
      meter.spend_text(container.rope().size());
      return find_text(container.str(), item.str()) != std::string::npos;
    case Kind::kDict:
      meter.spend_items(1 + container.dict().entries.size() / 8);
      return container.dict().find(item) != nullptr;
    case Kind::kSequence: {
      const Sequence& sequence = container.sequence();
      for (size_t i = 0; i < sequence.size(); ++i) {
        if (equals(sequence.at(i), item, meter)) return true;
      }
      return false;
    }
    default:
      throw TemplateError(
          fmt::format("argument of type '{}' is not iterable", type_name(container)));
  }
}

bool compare(Op op, const Value& a, const Value& b, Meter& meter) {
  switch (op) {
    case Op::kEqual:
      return equals(a, b, meter);
    case Op::kNotEqual:
      return !equals(a, b, meter);
    case Op::kIn:
      return contains(b, a, meter);
    case Op::kNotIn:
      return !contains(b, a, meter);
    case Op::kLess:
      return order(op, a, b, meter) < 0;
    case Op::kLessEqual:
      return order(op, a, b, meter) <= 0;
    case Op::kGreater:
      return order(op, a, b, meter) > 0;
    default:
      return order(op, a, b, meter) >= 0;
  }
}

}  // namespace tandem::text::jinja
