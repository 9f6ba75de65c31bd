// Methods of strings, mappings and lists. None of them changes its object.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "text/jinja/interpreter.h"
#include "text/jinja/rope_ops.h"
#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

struct Call {
  Interpreter& interpreter;
  const Value& self;
  std::string_view name;
  const Arguments& arguments;

  Meter& meter() const { return interpreter.meter(); }
  const Rope& rope() const { return self.rope(); }
  std::vector<const Value*> bind(std::initializer_list<std::string_view> names,
                                 size_t num_required) const {
    auto bound = bind_arguments(name, arguments, names);
    for (size_t i = 0; i < num_required; ++i) {
      if (bound[i] == nullptr) {
        throw TemplateError(fmt::format("{} needs {} argument(s)", name, num_required));
      }
    }
    return bound;
  }
  const Rope& text(const Value& value) const {
    if (value.is_string()) return value.rope();
    require_defined(value);
    throw TemplateError(fmt::format("{}: expected str, got {}", name, type_name(value)));
  }
  const Rope* optional_text(const Value* value) const {
    return value == nullptr || value->is_none() ? nullptr : &text(*value);
  }
  int64_t integer(const Value* value, int64_t fallback) const {
    if (value == nullptr) return fallback;
    if (!value->is_integral()) {
      throw TemplateError(fmt::format("{}: expected int, got {}", name, type_name(*value)));
    }
    constexpr Int kFar = Int{1} << 40;
    return static_cast<int64_t>(std::clamp(value->integral(), -kFar, kFar));
  }
};

Value list_of_ropes(std::vector<Rope> ropes) {
  std::vector<Value> items;
  items.reserve(ropes.size());
  for (Rope& rope : ropes) items.push_back(Value::text(std::move(rope)));
  return make_list(std::move(items));
}

Value text_upper(const Call& call) {
  call.bind({}, 0);
  return Value::text(to_upper(call.rope(), call.meter()));
}
Value text_lower(const Call& call) {
  call.bind({}, 0);
  return Value::text(to_lower(call.rope(), call.meter()));
}
Value text_title(const Call& call) {
  call.bind({}, 0);
  return Value::text(title_case(call.rope(), call.meter()));
}
Value text_capitalize(const Call& call) {
  call.bind({}, 0);
  return Value::text(capitalize(call.rope(), call.meter()));
}

Value text_strip(const Call& call) {
  const auto bound = call.bind({"chars"}, 0);
  const Side side = call.name == "lstrip"   ? Side::kLeft
                    : call.name == "rstrip" ? Side::kRight
                                            : Side::kBoth;
  return Value::text(strip(call.rope(), call.optional_text(bound[0]), side, call.meter()));
}

Value text_split(const Call& call) {
  const auto bound = call.bind({"sep", "maxsplit"}, 0);
  const Rope* separator = call.optional_text(bound[0]);
  const int64_t max_splits = call.integer(bound[1], -1);
  const auto splitter = call.name == "split" ? split : rsplit;
  return list_of_ropes(splitter(call.rope(), separator, max_splits, call.meter()));
}

Value text_splitlines(const Call& call) {
  const auto bound = call.bind({"keepends"}, 0);
  const bool keep_ends = bound[0] != nullptr && truthy(*bound[0]);
  return list_of_ropes(split_lines(call.rope(), keep_ends, call.meter()));
}

Value text_affix(const Call& call) {
  const auto bound = call.bind({"affix"}, 1);
  const auto matches = [&](const Value& affix) {
    const std::string& wanted = call.text(affix).text();
    return call.name == "startswith" ? call.rope().text().starts_with(wanted)
                                     : call.rope().text().ends_with(wanted);
  };
  if (!bound[0]->is(Kind::kSequence)) return matches(*bound[0]);
  const auto& affixes = bound[0]->sequence().items;
  call.meter().spend_items(affixes.size());
  return std::any_of(affixes.begin(), affixes.end(), matches);
}

Value text_remove_affix(const Call& call) {
  const auto bound = call.bind({"affix"}, 1);
  const Rope& affix = call.text(*bound[0]);
  const Rope& rope = call.rope();
  call.meter().spend_text(rope.size());
  if (call.name == "removeprefix") {
    const bool found = rope.text().starts_with(affix.text());
    return found ? Value::text(rope.slice(affix.size(), rope.size())) : call.self;
  }
  const bool found = !affix.empty() && rope.text().ends_with(affix.text());
  return found ? Value::text(rope.slice(0, rope.size() - affix.size())) : call.self;
}

Value text_find(const Call& call) {
  const auto bound = call.bind({"sub", "start"}, 1);
  const std::string& text = call.rope().text();
  const std::string& wanted = call.text(*bound[0]).text();
  call.meter().spend_text(text.size());
  const bool from_left = call.name == "find" || call.name == "index";
  const auto length = static_cast<int64_t>(count_code_points(text));
  int64_t start = call.integer(bound[1], 0);
  if (start < 0) start = std::max<int64_t>(0, start + length);
  size_t found = std::string::npos;
  const size_t begin = byte_offset(text, static_cast<size_t>(start));
  if (start <= length)
    found = from_left ? find_text(text, wanted, begin) : rfind_text(text, wanted);
  if (found != std::string::npos && found < begin) found = std::string::npos;
  if (found == std::string::npos) {
    if (call.name == "index" || call.name == "rindex") throw TemplateError("substring not found");
    return Value::integer(-1);
  }
  const std::string_view before = std::string_view(text).substr(0, found);
  return Value::integer(static_cast<int64_t>(count_code_points(before)));
}

Value text_count(const Call& call) {
  const auto bound = call.bind({"sub"}, 1);
  const std::string& text = call.rope().text();
  const std::string& wanted = call.text(*bound[0]).text();
  call.meter().spend_text(text.size());
  if (wanted.empty()) return Value::integer(static_cast<int64_t>(count_code_points(text)) + 1);
  int64_t count = 0;
  for (size_t at = find_text(text, wanted); at != std::string::npos;
       at = find_text(text, wanted, at + wanted.size())) {
    ++count;
  }
  return Value::integer(count);
}

Value text_replace(const Call& call) {
  const auto bound = call.bind({"old", "new", "count"}, 2);
  return Value::text(replace(call.rope(), call.text(*bound[0]), call.text(*bound[1]),
                             call.integer(bound[2], -1), call.meter()));
}

Value text_join(const Call& call) {
  const auto bound = call.bind({"iterable"}, 1);
  const SequencePtr items = call.interpreter.iterate(*bound[0]);
  std::vector<const Rope*> pieces;
  for (size_t i = 0; i < items->items.size(); ++i) pieces.push_back(&call.text(items->items[i]));
  if (items->kind == SequenceKind::kRange && items->size() > 0) {
    throw TemplateError("join: expected str, got int");
  }
  return Value::text(join(pieces, call.rope(), call.meter()));
}

Value text_predicate(const Call& call) {
  call.bind({}, 0);
  const std::string& text = call.rope().text();
  call.meter().spend_text(text.size());
  if (text.empty()) return false;
  const auto all = [&](auto predicate) {
    for (size_t position = 0; position < text.size();) {
      if (!predicate(next_code_point(text, position))) return false;
    }
    return true;
  };
  if (call.name == "isspace") return all(is_space);
  return all([](char32_t c) { return c >= '0' && c <= '9'; });
}

Value dict_get(const Call& call) {
  const auto bound = call.bind({"key", "default"}, 1);
  call.meter().spend_items(call.self.dict().entries.size() / 16);
  if (const Value* found = call.self.dict().find(*bound[0])) return *found;
  return bound[1] == nullptr ? Value(None{}) : *bound[1];
}

Value dict_view(const Call& call) {
  call.bind({}, 0);
  const auto& entries = call.self.dict().entries;
  call.meter().spend_items(entries.size());
  std::vector<Value> items;
  items.reserve(entries.size());
  for (const auto& [key, value] : entries) {
    if (call.name == "keys") items.push_back(key);
    if (call.name == "values") items.push_back(value);
    if (call.name == "items") items.push_back(make_sequence(SequenceKind::kTuple, {key, value}));
  }
  const char* python_name = call.name == "keys"     ? "dict_keys"
                            : call.name == "values" ? "dict_values"
                                                    : "dict_items";
  return make_sequence(SequenceKind::kView, std::move(items), python_name);
}

Value copy_self(const Call& call) {
  call.bind({}, 0);
  return call.self;  // nothing can change it, so the copy may be shared
}

Value sequence_search(const Call& call) {
  const auto bound = call.bind({"value"}, 1);
  const Sequence& sequence = call.self.sequence();
  int64_t count = 0;
  for (size_t i = 0; i < sequence.size(); ++i) {
    if (!equals(sequence.at(i), *bound[0], call.meter())) continue;
    if (call.name == "index") return Value::integer(static_cast<int64_t>(i));
    ++count;
  }
  if (call.name == "index") throw TemplateError("index: the value is not in the list");
  return Value::integer(count);
}

struct MethodEntry {
  Kind kind;
  std::string_view name;
  Value (*apply)(const Call&);
};

constexpr MethodEntry kMethods[] = {
    {Kind::kString, "split", text_split},
    {Kind::kString, "rsplit", text_split},
    {Kind::kString, "splitlines", text_splitlines},
    {Kind::kString, "strip", text_strip},
    {Kind::kString, "lstrip", text_strip},
    {Kind::kString, "rstrip", text_strip},
    {Kind::kString, "startswith", text_affix},
    {Kind::kString, "endswith", text_affix},
    {Kind::kString, "removeprefix", text_remove_affix},
    {Kind::kString, "removesuffix", text_remove_affix},
    {Kind::kString, "upper", text_upper},
    {Kind::kString, "lower", text_lower},
    {Kind::kString, "title", text_title},
    {Kind::kString, "capitalize", text_capitalize},
    {Kind::kString, "replace", text_replace},
    {Kind::kString, "join", text_join},
    {Kind::kString, "find", text_find},
    {Kind::kString, "rfind", text_find},
    {Kind::kString, "index", text_find},
    {Kind::kString, "rindex", text_find},
    {Kind::kString, "count", text_count},
    {Kind::kString, "isdigit", text_predicate},
    {Kind::kString, "isspace", text_predicate},
    {Kind::kDict, "get", dict_get},
    {Kind::kDict, "items", dict_view},
    {Kind::kDict, "keys", dict_view},
    {Kind::kDict, "values", dict_view},
    {Kind::kDict, "copy", copy_self},
    {Kind::kSequence, "copy", copy_self},
    {Kind::kSequence, "index", sequence_search},
    {Kind::kSequence, "count", sequence_search},
};

// Python's other methods. A lookup such as value['format'] finds them, so they must exist.
constexpr std::string_view kOtherTextMethods[] = {
    "casefold",  "center",      "encode",     "expandtabs", "format",       "format_map",
    "isalnum",   "isalpha",     "isascii",    "isdecimal",  "isidentifier", "islower",
    "isnumeric", "isprintable", "istitle",    "isupper",    "ljust",        "maketrans",
    "partition", "rjust",       "rpartition", "swapcase",   "translate",    "zfill"};

template <typename Range>
bool has(const Range& names, std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

const MethodEntry* find_method(Kind kind, std::string_view name) {
  const auto* entry = std::find_if(
      std::begin(kMethods), std::end(kMethods),
      [&](const MethodEntry& method) { return method.kind == kind && method.name == name; });
  return entry == std::end(kMethods) ? nullptr : entry;
}

}  // namespace

bool is_supported_method(std::string_view name) {
  if (name == "cycle" || name == "changed") return true;  // of loop
  return std::any_of(std::begin(kMethods), std::end(kMethods),
                     [&](const MethodEntry& method) { return method.name == name; });
}

bool has_method(const Value& self, std::string_view name) {
  switch (self.kind()) {
    case Kind::kString:
      return find_method(Kind::kString, name) != nullptr || has(kOtherTextMethods, name);
    case Kind::kDict:
      return find_method(Kind::kDict, name) != nullptr || name == "fromkeys";
    case Kind::kSequence:
      if (self.sequence().kind == SequenceKind::kList) {
        return find_method(Kind::kSequence, name) != nullptr;
      }
      return self.sequence().kind <= SequenceKind::kRange && (name == "index" || name == "count");
    default:
      return false;
  }
}

Value call_method(Interpreter& interpreter, const Value& self, std::string_view name,
                  const Arguments& arguments) {
  const MethodEntry* method = find_method(self.kind(), name);
  if (method == nullptr) {
    throw TemplateError(
        fmt::format("the method '{}' of {} is not supported", name, type_name(self)));
  }
  return method->apply(Call{interpreter, self, name, arguments});
}

}  // namespace tandem::text::jinja
