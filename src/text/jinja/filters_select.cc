// map, select, reject and their attribute forms: filters that name other filters and tests.
#include <fmt/format.h>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"

namespace tandem::text::jinja {
namespace {

template <typename Entry>
const Entry& find_named(const Entry* (*find)(std::string_view), std::string_view kind,
                        const Value& name) {
  const Entry* entry = name.is_string() ? find(name.str()) : nullptr;
  if (entry == nullptr) {
    throw TemplateError(
        fmt::format("the {} '{}' is not supported", kind, name.is_string() ? name.str() : "?"),
        true);
  }
  return *entry;
}

// The arguments behind the first `count` positional ones.
Arguments rest_of(const Arguments& arguments, size_t count) {
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(count),
                         arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

Value map_attribute(Interpreter& interpreter, const Sequence& items, const Arguments& arguments) {
  const auto bound = bind_arguments("map", arguments, {"attribute", "default"});
  std::vector<Value> results;
  for (size_t i = 0; i < items.size(); ++i) {
    interpreter.meter().spend(1);
    results.push_back(resolve_path(interpreter, items.at(i), bound[0], bound[1]));
  }
  return make_sequence(SequenceKind::kGenerator, std::move(results));
}

Value filter_map(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  // jinja2 looks for items only in what is true: `false | map('upper')` is empty.
  const SequencePtr items = interpreter.iterate(truthy(input) ? input : Value());
  if (arguments.positional.empty()) {
    if (arguments.named.empty()) throw TemplateError("map needs a filter or attribute=");
    return map_attribute(interpreter, *items, arguments);
  }
  const FilterEntry& filter = find_named(find_filter, "filter", arguments.positional[0]);
  const Arguments rest = rest_of(arguments, 1);
  std::vector<Value> results;
  for (size_t i = 0; i < items->size(); ++i) {
    interpreter.meter().spend(1);
    results.push_back(filter.apply(interpreter, items->at(i), rest));
  }
  return make_sequence(SequenceKind::kGenerator, std::move(results));
}

Value select_items(Interpreter& interpreter, const Value& input, const Arguments& arguments,
                   bool keep, bool by_attribute) {
  const size_t offset = by_attribute ? 1 : 0;
  if (arguments.positional.size() < offset) throw TemplateError("the filter needs an attribute");
  const Value* attribute = by_attribute ? &arguments.positional[0] : nullptr;
  const TestEntry* test = nullptr;
  Arguments rest;
  if (arguments.positional.size() > offset) {
    test = &find_named(find_test, "test", arguments.positional[offset]);
    rest = rest_of(arguments, offset + 1);
  }
  std::vector<Value> results;
  const SequencePtr items = interpreter.iterate(truthy(input) ? input : Value());
  for (size_t i = 0; i < items->size(); ++i) {
    interpreter.meter().spend(1);
    Value item = items->at(i);
    const Value value = resolve_path(interpreter, item, attribute);
    const bool passes = test != nullptr ? test->apply(interpreter, value, rest) : truthy(value);
    if (passes == keep) results.push_back(std::move(item));
  }
  return make_sequence(SequenceKind::kGenerator, std::move(results));
}

template <bool kKeep, bool kByAttribute>
Value filter_select(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  return select_items(interpreter, input, arguments, kKeep, kByAttribute);
}

constexpr FilterEntry kFilters[] = {{"map", filter_map},
                                    {"select", filter_select<true, false>},
                                    {"reject", filter_select<false, false>},
                                    {"selectattr", filter_select<true, true>},
                                    {"rejectattr", filter_select<false, true>}};

}  // namespace

std::span<const FilterEntry> select_filters() {
  return kFilters;
}

const FilterEntry* find_filter(std::string_view name) {
  for (const auto family :
       {text_filters(), value_filters(), sequence_filters(), select_filters()}) {
    for (const FilterEntry& filter : family) {
      if (filter.name == name) return &filter;
    }
  }
  return nullptr;
}

}  // namespace tandem::text::jinja
