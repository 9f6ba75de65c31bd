// Global functions: range, namespace, dict, raise_exception, strftime_now.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "text/jinja/interpreter.h"

namespace tandem::text::jinja {
namespace {

constexpr std::pair<std::string_view, Function> kFunctions[] = {
    {"range", Function::kRange},
    {"namespace", Function::kNamespace},
    {"dict", Function::kDict},
    {"raise_exception", Function::kRaiseException},
    {"strftime_now", Function::kStrftimeNow}};

int64_t range_bound(const Value& value) {
  if (!value.is_integral()) {
    require_defined(value);
    throw TemplateError(
        fmt::format("'{}' object cannot be interpreted as an integer", type_name(value)));
  }
  constexpr Int kFar = Int{1} << 60;
  return static_cast<int64_t>(std::clamp(value.integral(), -kFar, kFar));
}

Value call_range(const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3 || !arguments.named.empty()) {
    throw TemplateError("range takes 1 to 3 integers");
  }
  const int64_t start = given.size() > 1 ? range_bound(given[0]) : 0;
  const int64_t stop = range_bound(given.size() > 1 ? given[1] : given[0]);
  const int64_t step = given.size() > 2 ? range_bound(given[2]) : 1;
  if (step == 0) throw TemplateError("range step must not be zero");
  const int64_t distance = step > 0 ? stop - start : start - stop;
  const int64_t stride = step > 0 ? step : -step;
  const int64_t length = distance > 0 ? (distance - 1) / stride + 1 : 0;
  if (length > kMaxRange) {
    throw TemplateError(
        fmt::format("range of {} items; at most {} are allowed", length, kMaxRange));
  }
  return make_range(start, step, static_cast<size_t>(length));
}

// The entries dict() and namespace() start from: one mapping, then named arguments.
Dict entries_of(std::string_view callee, const Arguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) {
    throw TemplateError(fmt::format("{} takes at most one mapping", callee));
  }
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (!source.is(Kind::kDict)) {
      throw TemplateError(fmt::format("{}: expected a mapping, got {}", callee, type_name(source)));
    }
    dict.entries = source.dict().entries;
  }
  for (const auto& [name, value] : arguments.named) dict.set(Value::text(name), value);
  return dict;
}

Value call_strftime(Interpreter& interpreter, const Arguments& arguments) {
  const auto bound = bind_arguments("strftime_now", arguments, {"format"});
  if (bound[0] == nullptr || !bound[0]->is_string()) {
    throw TemplateError("strftime_now takes a format string");
  }
  const std::string& format = bound[0]->str();
  if (format.size() > 256) throw TemplateError("strftime_now: the format is too long");
  if (format.empty()) return Value::text("");
  std::tm local{};
  const std::time_t now = interpreter.now();
  localtime_r(&now, &local);
  char buffer[4096];
  const size_t length = std::strftime(buffer, sizeof(buffer), format.c_str(), &local);
  return Value::text(std::string_view(buffer, length));
}

}  // namespace

const Function* find_function(std::string_view name) {
  for (const auto& [candidate, function] : kFunctions) {
    if (candidate == name) return &function;
  }
  return nullptr;
}

Value call_function(Interpreter& interpreter, Function function, const Arguments& arguments) {
  switch (function) {
    case Function::kRange:
      return call_range(arguments);
    case Function::kNamespace: {
      Dict entries = entries_of("namespace", arguments);
      Namespace space;
      for (auto& [key, value] : entries.entries) {
        if (!key.is_string()) throw TemplateError("namespace: expected names as keys");
        space.attributes.emplace_back(key.str(), std::move(value));
      }
      return interpreter.new_namespace(std::move(space));
    }
    case Function::kDict:
      return make_dict(entries_of("dict", arguments));
    case Function::kRaiseException: {
      const auto bound = bind_arguments("raise_exception", arguments, {"message"});
      throw TemplateError(bound[0] == nullptr ? "the template refuses this conversation"
                                              : interpreter.text_of(*bound[0])->text());
    }
    case Function::kStrftimeNow:
      return call_strftime(interpreter, arguments);
  }
  return Value();
}

std::vector<const Value*> bind_arguments(std::string_view callee, const Arguments& arguments,
                                         std::initializer_list<std::string_view> names) {
  if (arguments.positional.size() > names.size()) {
    throw TemplateError(fmt::format("{} takes at most {} arguments, got {}", callee, names.size(),
                                    arguments.positional.size()));
  }
  std::vector<const Value*> bound(names.size(), nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto* position = std::find(names.begin(), names.end(), name);
    if (position == names.end()) {
      throw TemplateError(fmt::format("{} takes no argument '{}'", callee, name));
    }
    const Value*& slot = bound[static_cast<size_t>(position - names.begin())];
    if (slot != nullptr) throw TemplateError(fmt::format("{} got '{}' twice", callee, name));
    slot = &value;
  }
  return bound;
}

}  // namespace tandem::text::jinja
