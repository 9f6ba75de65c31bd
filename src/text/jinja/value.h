// The values a template computes with: Python's kinds, as far as chat templates use them.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/rope.h"

namespace tandem::text::jinja {

struct Sequence;
struct Dict;
struct Namespace;
struct Macro;
struct Method;
class LoopState;

using RopePtr = std::shared_ptr<const Rope>;
using SequencePtr = std::shared_ptr<const Sequence>;
using DictPtr = std::shared_ptr<const Dict>;
using Int = __int128;  // holds every int64 and uint64; arithmetic past it is an error

// `name` says what was looked up, for the message when it is used.
struct Undefined {
  RopePtr name;
};
struct None {};
enum class Function : uint8_t { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow };

// Order of the alternatives of Value::Data.
enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kSequence,
  kDict,
  kNamespace,
  kMacro,
  kMethod,
  kFunction,
  kLoop
};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, Int, double, RopePtr, SequencePtr, DictPtr,
                            std::shared_ptr<Namespace>, std::shared_ptr<const Macro>,
                            std::shared_ptr<const Method>, Function, std::shared_ptr<LoopState>>;

  Value() = default;
  template <typename T>
    requires(!std::is_same_v<T, Value>) && std::is_constructible_v<Data, std::in_place_type_t<T>, T>
  Value(T data)  // NOLINT: a Value is any of its alternatives
      : data_(std::in_place_type<T>, std::move(data)) {}
  static Value text(Rope rope) { return RopePtr(std::make_shared<const Rope>(std::move(rope))); }
  static Value text(std::string_view literal, bool trusted = true) {
    return text(Rope(std::string(literal), trusted));
  }
  static Value integer(int64_t number) { return Int{number}; }
  static Value undefined(RopePtr name = nullptr) { return Undefined{std::move(name)}; }

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind kind_in) const { return kind() == kind_in; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_string() const { return is(Kind::kString); }
  bool is_number() const { return is(Kind::kBool) || is(Kind::kInt) || is(Kind::kFloat); }
  bool is_integral() const { return is(Kind::kBool) || is(Kind::kInt); }

  bool boolean() const { return std::get<bool>(data_); }
  Int integral() const { return is(Kind::kBool) ? Int{boolean()} : std::get<Int>(data_); }
  double number() const {
    return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(integral());
  }
  const Rope& rope() const { return *std::get<RopePtr>(data_); }
  const RopePtr& rope_ptr() const { return std::get<RopePtr>(data_); }
  const std::string& str() const { return rope().text(); }
  const Sequence& sequence() const { return *std::get<SequencePtr>(data_); }
  const Dict& dict() const { return *std::get<DictPtr>(data_); }
  template <typename T>
  const T& as() const {
    return std::get<T>(data_);
  }

 private:
  Data data_;
};

enum class SequenceKind : uint8_t { kList, kTuple, kRange, kGenerator, kView };

// List, tuple, range, and what Python returns lazily: generators (read once) and dict views.
struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;           // empty for a range
  int64_t start = 0, step = 1;        // of a range
  size_t length = 0;                  // of a range
  int depth = 1;                      // nesting of lists and dicts, at most kMaxDepth
  mutable bool consumed = false;      // of a generator
  const char* python_name = nullptr;  // of a view: "dict_items"

  size_t size() const { return kind == SequenceKind::kRange ? length : items.size(); }
  Value at(size_t i) const {
    if (kind != SequenceKind::kRange) return items[i];
    return Value::integer(start + step * static_cast<int64_t>(i));
  }
};

// Keeps insertion order. Keys are any hashable value.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int depth = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  // Replaces in place or appends.
  void set(Value key, Value value);
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};

// `object.name` where name is a method of Python's type.
struct Method {
  Value self;
  std::string name;
};

// `python_name` is the type of a view: "dict_items".
Value make_sequence(SequenceKind kind, std::vector<Value> items, const char* python_name = nullptr);
inline Value make_list(std::vector<Value> items) {
  return make_sequence(SequenceKind::kList, std::move(items));
}
Value make_range(int64_t start, int64_t step, size_t length);
Value make_dict(Dict dict);

// `trusted` is the origin of every string inside. Throws TemplateError when nested too deeply.
Value from_json(const nlohmann::ordered_json& json, bool trusted);

bool truthy(const Value& value);
// Python's name of the type, for messages: "str", "NoneType", "dict".
std::string_view type_name(const Value& value);

}  // namespace tandem::text::jinja
