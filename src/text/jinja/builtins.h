// Names a template can use without defining them: functions, filters, tests, methods.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace tandem::text::jinja {

class Interpreter;

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

struct FilterEntry {
  std::string_view name;
  Value (*apply)(Interpreter&, const Value& input, const Arguments& arguments);
};
struct TestEntry {
  std::string_view name;
  bool (*apply)(Interpreter&, const Value& input, const Arguments& arguments);
};

// nullptr when there is none of that name.
const Function* find_function(std::string_view name);
const FilterEntry* find_filter(std::string_view name);
const TestEntry* find_test(std::string_view name);

// Methods a template may call on strings, mappings and lists.
bool is_supported_method(std::string_view name);
// Whether Python's type of `self` has a method of this name, supported or not.
bool has_method(const Value& self, std::string_view name);
Value call_method(Interpreter& interpreter, const Value& self, std::string_view name,
                  const Arguments& arguments);
Value call_function(Interpreter& interpreter, Function function, const Arguments& arguments);

// Arguments in the order of `names`; missing ones are null. Too many or unknown ones are an error.
std::vector<const Value*> bind_arguments(std::string_view callee, const Arguments& arguments,
                                         std::initializer_list<std::string_view> names);
// The result points into the arguments, so they must outlive it.
std::vector<const Value*> bind_arguments(std::string_view, Arguments&&,
                                         std::initializer_list<std::string_view>) = delete;

}  // namespace tandem::text::jinja
