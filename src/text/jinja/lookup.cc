// Attributes, subscripts and iteration of values.
#include <fmt/format.h>

#include "text/jinja/interpreter.h"
#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

Value make_method(const Value& self, std::string_view name) {
  return std::shared_ptr<const Method>(std::make_shared<Method>(Method{self, std::string(name)}));
}

// Position of an index that may be negative; false when outside.
bool resolve_index(Int index, size_t size, size_t& position) {
  const Int count = static_cast<Int>(size);
  if (index < 0) index += count;
  if (index < 0 || index >= count) return false;
  position = static_cast<size_t>(index);
  return true;
}

Value character_at(const Value& value, Int index, Meter& meter) {
  const Rope& rope = value.rope();
  meter.spend(static_cast<int64_t>(rope.size() / kBytesPerFuel));
  size_t position = 0;
  if (!resolve_index(index, count_code_points(rope.text()), position)) return Value();
  const size_t begin = byte_offset(rope.text(), position);
  size_t end = begin;
  next_code_point(rope.text(), end);
  return Value::text(rope.slice(begin, end));
}

SequencePtr list_of(std::vector<Value> items) {
  return make_list(std::move(items)).as<SequencePtr>();
}

SequencePtr characters_of(const Rope& rope, Meter& meter) {
  std::vector<Value> items;
  meter.spend_text(rope.size());
  for (size_t position = 0; position < rope.size();) {
    const size_t begin = position;
    next_code_point(rope.text(), position);
    meter.spend(1);
    items.push_back(Value::text(rope.slice(begin, position)));
  }
  return list_of(std::move(items));
}

}  // namespace

Value Interpreter::get_attribute(const Value& value, const RopePtr& name) {
  switch (value.kind()) {
    case Kind::kUndefined:
      require_defined(value);
      break;
    case Kind::kNamespace: {
      const auto& space = value.as<std::shared_ptr<Namespace>>();
      const Value* found = space->find(name->text());
      return found != nullptr ? *found : Value::undefined(name);
    }
    case Kind::kLoop: {
      auto found = value.as<std::shared_ptr<LoopState>>()->attribute(name->text());
      return found ? *found : Value::undefined(name);
    }
    case Kind::kDict: {
      if (has_method(value, name->text())) return make_method(value, name->text());
      meter_.spend_items(value.dict().entries.size() / 16);
      const Value* found = value.dict().find(name->text());
      return found != nullptr ? *found : Value::undefined(name);
    }
    default:
      if (has_method(value, name->text())) return make_method(value, name->text());
  }
  return Value::undefined(name);
}

Value Interpreter::get_item(const Value& value, const Value& key) {
  const RopePtr name = key.is_string() ? key.rope_ptr() : nullptr;
  switch (value.kind()) {
    case Kind::kUndefined:
      require_defined(value);
      break;
    case Kind::kDict: {
      meter_.spend_items(value.dict().entries.size() / 16);
      if (const Value* found = value.dict().find(key)) return *found;
      break;
    }
    case Kind::kSequence: {
      const Sequence& sequence = value.sequence();
      if (!key.is_integral() || sequence.kind > SequenceKind::kRange) break;
      size_t position = 0;
      return resolve_index(key.integral(), sequence.size(), position) ? sequence.at(position)
                                                                      : Value();
    }
    case Kind::kString:
      if (key.is_integral()) return character_at(value, key.integral(), meter_);
      break;
    case Kind::kNamespace:
    case Kind::kLoop:
      if (name != nullptr) return get_attribute(value, name);
      break;
    default:
      break;
  }
  if (name != nullptr && has_method(value, name->text())) return make_method(value, name->text());
  return Value::undefined(name);
}

SequencePtr Interpreter::iterate(const Value& value) {
  static const SequencePtr kEmpty = list_of({});
  switch (value.kind()) {
    case Kind::kUndefined:
      return kEmpty;
    case Kind::kString:
      return characters_of(value.rope(), meter_);
    case Kind::kDict: {
      std::vector<Value> keys;
      meter_.spend_items(value.dict().entries.size());
      keys.reserve(value.dict().entries.size());
      for (const auto& [key, item] : value.dict().entries) keys.push_back(key);
      return list_of(std::move(keys));
    }
    case Kind::kSequence: {
      const Sequence& sequence = value.sequence();
      if (sequence.kind == SequenceKind::kGenerator && std::exchange(sequence.consumed, true)) {
        return kEmpty;
      }
      return value.as<SequencePtr>();
    }
    default:
      throw TemplateError(fmt::format("'{}' object is not iterable", type_name(value)));
  }
}

}  // namespace tandem::text::jinja
