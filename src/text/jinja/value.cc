#include "text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/jinja/limits.h"
#include "text/jinja/operators.h"

namespace tandem::text::jinja {
namespace {

int depth_of(const Value& value) {
  if (value.is(Kind::kSequence)) return value.sequence().depth;
  if (value.is(Kind::kDict)) return value.dict().depth;
  return 0;
}

int checked_depth(int deepest_child) {
  // Bounds every recursive walk over values, their destruction included.
  if (deepest_child >= kMaxDepth) throw TemplateError("a list or mapping nests too deeply");
  return deepest_child + 1;
}

Value from_json_at(const nlohmann::ordered_json& json, bool trusted, int depth) {
  if (depth > kMaxDepth) throw TemplateError("a list or mapping nests too deeply");
  switch (json.type()) {
    case nlohmann::json::value_t::boolean:
      return json.get<bool>();
    case nlohmann::json::value_t::number_integer:
      return Int{json.get<int64_t>()};
    case nlohmann::json::value_t::number_unsigned:
      return Int{json.get<uint64_t>()};
    case nlohmann::json::value_t::number_float:
      return json.get<double>();
    case nlohmann::json::value_t::string:
      return Value::text(json.get_ref<const std::string&>(), trusted);
    case nlohmann::json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json_at(item, trusted, depth + 1));
      return make_list(std::move(items));
    }
    case nlohmann::json::value_t::object: {
      Dict dict;
      dict.entries.reserve(json.size());
      for (const auto& [key, item] : json.items()) {
        dict.entries.emplace_back(Value::text(key, trusted),
                                  from_json_at(item, trusted, depth + 1));
      }
      return make_dict(std::move(dict));
    }
    default:
      return None{};
  }
}

}  // namespace

const Value* Dict::find(const Value& key) const {
  if (key.is_string()) return find(std::string_view(key.str()));
  for (const auto& [entry_key, value] : entries) {
    if (!entry_key.is_string() && equals_scalar(entry_key, key)) return &value;
  }
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [entry_key, value] : entries) {
    if (entry_key.is_string() && entry_key.str() == key) return &value;
  }
  return nullptr;
}

void Dict::set(Value key, Value value) {
  if (const Value* existing = find(key)) {
    const_cast<Value&>(*existing) = std::move(value);
    return;
  }
  entries.emplace_back(std::move(key), std::move(value));
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  if (const Value* existing = find(name)) {
    const_cast<Value&>(*existing) = std::move(value);
    return;
  }
  attributes.emplace_back(std::string(name), std::move(value));
}

Value make_sequence(SequenceKind kind, std::vector<Value> items, const char* python_name) {
  auto sequence = std::make_shared<Sequence>();
  sequence->kind = kind;
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, depth_of(item));
  sequence->depth = checked_depth(deepest);
  sequence->items = std::move(items);
  sequence->python_name = python_name;
  return SequencePtr(std::move(sequence));
}

Value make_range(int64_t start, int64_t step, size_t length) {
  auto sequence = std::make_shared<Sequence>();
  sequence->kind = SequenceKind::kRange;
  sequence->start = start;
  sequence->step = step;
  sequence->length = length;
  return SequencePtr(std::move(sequence));
}

Value make_dict(Dict dict) {
  int deepest = 0;
  for (const auto& [key, value] : dict.entries) {
    deepest = std::max({deepest, depth_of(key), depth_of(value)});
  }
  dict.depth = checked_depth(deepest);
  return DictPtr(std::make_shared<const Dict>(std::move(dict)));
}

Value from_json(const nlohmann::ordered_json& json, bool trusted) {
  return from_json_at(json, trusted, 0);
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.integral() != 0;
    case Kind::kFloat:
      return value.number() != 0.0;
    case Kind::kString:
      return !value.rope().empty();
    case Kind::kSequence:
      return value.sequence().kind == SequenceKind::kGenerator || value.sequence().size() != 0;
    case Kind::kDict:
      return !value.dict().entries.empty();
    default:
      return true;
  }
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kSequence: {
      const Sequence& sequence = value.sequence();
      if (sequence.kind == SequenceKind::kView) return sequence.python_name;
      constexpr std::string_view kNames[] = {"list", "tuple", "range", "generator"};
      return kNames[static_cast<size_t>(sequence.kind)];
    }
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kMacro:
      return "Macro";
    case Kind::kMethod:
      return "method";
    case Kind::kFunction:
      return "function";
    case Kind::kLoop:
      return "LoopContext";
  }
  return "object";
}

}  // namespace tandem::text::jinja
