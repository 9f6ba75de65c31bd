#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/rope_ops.h"
#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

std::vector<Value> items_of(Interpreter& interpreter, const Value& value) {
  const SequencePtr sequence = interpreter.iterate(value);
  interpreter.meter().spend_items(sequence->size());
  std::vector<Value> items;
  items.reserve(sequence->size());
  for (size_t i = 0; i < sequence->size(); ++i) items.push_back(sequence->at(i));
  return items;
}

Value filter_list(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  bind_arguments("list", arguments, {});
  return make_list(items_of(interpreter, input));
}

Value filter_length(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  bind_arguments("length", arguments, {});
  const auto number = [](size_t n) { return Value::integer(static_cast<int64_t>(n)); };
  if (input.is_undefined()) return number(0);
  if (input.is_string()) {
    interpreter.meter().spend_text(input.rope().size());
    return number(count_code_points(input.str()));
  }
  if (input.is(Kind::kDict)) return number(input.dict().entries.size());
  if (input.is(Kind::kSequence) && input.sequence().kind != SequenceKind::kGenerator) {
    return number(input.sequence().size());
  }
  throw TemplateError(fmt::format("object of type '{}' has no len()", type_name(input)));
}

Value filter_first(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  bind_arguments("first", arguments, {});
  const SequencePtr items = interpreter.iterate(input);
  return items->size() == 0 ? Value() : items->at(0);
}

void require_reversible(const Value& input) {
  const bool generator =
      input.is(Kind::kSequence) && input.sequence().kind == SequenceKind::kGenerator;
  if (generator) throw TemplateError("'generator' object is not reversible; add `| list`");
}

Value filter_last(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  bind_arguments("last", arguments, {});
  require_reversible(input);
  const SequencePtr items = interpreter.iterate(input);
  return items->size() == 0 ? Value() : items->at(items->size() - 1);
}

Value filter_reverse(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  bind_arguments("reverse", arguments, {});
  if (input.is_string()) return Value::text(reverse_text(input.rope(), interpreter.meter()));
  std::vector<Value> items = items_of(interpreter, input);
  std::reverse(items.begin(), items.end());
  return make_sequence(SequenceKind::kGenerator, std::move(items));
}

struct Keyed {
  Value key;
  Value item;
};

void sort_keyed(Interpreter& interpreter, std::vector<Keyed>& items, bool reverse) {
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? compare(Op::kLess, b.key, a.key, interpreter.meter())
                   : compare(Op::kLess, a.key, b.key, interpreter.meter());
  });
}

Value list_of_items(std::vector<Keyed> keyed) {
  std::vector<Value> items;
  items.reserve(keyed.size());
  for (Keyed& entry : keyed) items.push_back(std::move(entry.item));
  return make_list(std::move(items));
}

// Key of an item under "a,b". Always a list, as in jinja2: equal items, even undefined ones, are
// then never asked which is less.
Value multi_key(Interpreter& interpreter, const Value& item, const Value* attribute,
                bool case_sensitive) {
  std::vector<Value> keys;
  if (attribute == nullptr || !attribute->is_string()) {
    keys.push_back(
        sort_key(interpreter, resolve_path(interpreter, item, attribute), case_sensitive));
    return make_list(std::move(keys));
  }
  const Rope comma(",", true);
  for (Rope& part : split(attribute->rope(), &comma, -1, interpreter.meter())) {
    const Value path = Value::text(std::move(part));
    keys.push_back(sort_key(interpreter, resolve_path(interpreter, item, &path), case_sensitive));
  }
  return make_list(std::move(keys));
}

Value filter_sort(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  std::vector<Keyed> keyed;
  for (Value& item : items_of(interpreter, input)) {
    Value key = multi_key(interpreter, item, bound[2], flag(bound[1], false));
    keyed.push_back({std::move(key), std::move(item)});
  }
  sort_keyed(interpreter, keyed, flag(bound[0], false));
  return list_of_items(std::move(keyed));
}

Value filter_dictsort(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  if (!input.is(Kind::kDict)) {
    require_defined(input);
    throw TemplateError(fmt::format("dictsort: expected a mapping, got {}", type_name(input)));
  }
  const std::string by = bound[1] != nullptr && bound[1]->is_string() ? bound[1]->str() : "key";
  if (by != "key" && by != "value") throw TemplateError("dictsort: by must be 'key' or 'value'");
  std::vector<Keyed> keyed;
  interpreter.meter().spend_items(input.dict().entries.size());
  for (const auto& [key, value] : input.dict().entries) {
    keyed.push_back({sort_key(interpreter, by == "key" ? key : value, flag(bound[0], false)),
                     make_sequence(SequenceKind::kTuple, {key, value})});
  }
  sort_keyed(interpreter, keyed, flag(bound[2], false));
  return list_of_items(std::move(keyed));
}

Value filter_items(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  bind_arguments("items", arguments, {});
  std::vector<Value> items;
  if (!input.is_undefined()) {
    if (!input.is(Kind::kDict)) throw TemplateError("Can only get item pairs from a mapping.");
    interpreter.meter().spend_items(input.dict().entries.size());
    for (const auto& [key, value] : input.dict().entries) {
      items.push_back(make_sequence(SequenceKind::kTuple, {key, value}));
    }
  }
  return make_sequence(SequenceKind::kGenerator, std::move(items));
}

Value filter_unique(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("unique", arguments, {"case_sensitive", "attribute"});
  std::vector<Value> seen;
  std::vector<Value> items;
  for (Value& item : items_of(interpreter, input)) {
    const Value key =
        sort_key(interpreter, resolve_path(interpreter, item, bound[1]), flag(bound[0], false));
    const bool known = std::any_of(seen.begin(), seen.end(), [&](const Value& other) {
      return equals(other, key, interpreter.meter());
    });
    if (known) continue;
    seen.push_back(key);
    items.push_back(std::move(item));
  }
  return make_sequence(SequenceKind::kGenerator, std::move(items));
}

Value filter_sum(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("sum", arguments, {"attribute", "start"});
  Value total = bound[1] == nullptr ? Value::integer(0) : *bound[1];
  for (const Value& item : items_of(interpreter, input)) {
    total =
        arithmetic(Op::kAdd, total, resolve_path(interpreter, item, bound[0]), interpreter.meter());
  }
  return total;
}

template <Op kBetter>
Value filter_extreme(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const auto bound = bind_arguments("min/max", arguments, {"case_sensitive", "attribute"});
  Value best;
  Value best_key;
  bool first = true;
  for (Value& item : items_of(interpreter, input)) {
    Value key =
        sort_key(interpreter, resolve_path(interpreter, item, bound[1]), flag(bound[0], false));
    if (!first && !compare(kBetter, key, best_key, interpreter.meter())) continue;
    first = false;
    best = std::move(item);
    best_key = std::move(key);
  }
  return best;
}

constexpr FilterEntry kFilters[] = {{"list", filter_list},
                                    {"length", filter_length},
                                    {"count", filter_length},
                                    {"first", filter_first},
                                    {"last", filter_last},
                                    {"reverse", filter_reverse},
                                    {"sort", filter_sort},
                                    {"dictsort", filter_dictsort},
                                    {"items", filter_items},
                                    {"unique", filter_unique},
                                    {"sum", filter_sum},
                                    {"min", filter_extreme<Op::kLess>},
                                    {"max", filter_extreme<Op::kGreater>}};

}  // namespace

std::span<const FilterEntry> sequence_filters() {
  return kFilters;
}

Value sort_key(Interpreter& interpreter, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return Value::text(to_lower(value.rope(), interpreter.meter()));
}

Value resolve_path(Interpreter& interpreter, const Value& item, const Value* attribute,
                   const Value* fallback) {
  if (attribute == nullptr || attribute->is_none()) return item;
  if (!attribute->is_string()) return interpreter.get_item(item, *attribute);
  const Rope dot(".", true);
  Value value = item;
  for (Rope& part : split(attribute->rope(), &dot, -1, interpreter.meter())) {
    const std::string& text = part.text();
    const bool is_index =
        !text.empty() && text.size() < 10 &&
        std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    const Value key = is_index ? Value::integer(std::stoi(text)) : Value::text(std::move(part));
    value = interpreter.get_item(value, key);
    if (value.is_undefined() && fallback != nullptr) value = *fallback;
  }
  return value;
}

}  // namespace tandem::text::jinja
