// What a value may look like: a JSON schema read into the few forms that a grammar can hold to. A
// shape never allows what its schema forbids; it may allow less (docs/user/structured_output.md).
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "text/grammar/regex.h"

namespace tandem::text {

using ShapeId = int32_t;  // index into ShapeTable::shapes

struct NothingShape {};  // no value at all
struct AnyShape {};      // any JSON value
struct NullShape {};
struct BooleanShape {};

struct NumberBound {
  std::string digits;      // decimal, as `-12.05`
  bool exclusive = false;  // the number itself is outside
};
struct NumberShape {
  bool integer = false;
  std::optional<NumberBound> min;
  std::optional<NumberBound> max;
};

enum class StringFormat {
  kDate,
  kTime,
  kDateTime,
  kDuration,
  kEmail,
  kHostname,
  kIpv4,
  kIpv6,
  kUri,
  kUuid
};
struct StringShape {
  int64_t min_length = 0;
  int64_t max_length = -1;  // -1: no bound
  std::optional<StringFormat> format;
  std::shared_ptr<const Regex> pattern;  // not together with lengths or a format
  std::string where;                     // of the pattern
};

struct ArrayShape {
  std::vector<ShapeId> prefix;   // of the first elements
  std::optional<ShapeId> items;  // of the others; absent: there are none
  int64_t min_items = 0;
  int64_t max_items = -1;  // -1: no bound
};

struct ObjectShape {
  struct Property {
    std::string name;
    ShapeId shape = 0;
    bool required = false;
  };
  std::vector<Property> properties;   // in this order
  std::optional<ShapeId> others;      // of properties with other names; absent: there are none
  bool schema_allows_others = false;  // though the grammar does not write them
};

struct ConstantShape {
  std::shared_ptr<const nlohmann::ordered_json> value;
};
struct ChoiceShape {
  std::vector<ShapeId> shapes;
};

using ShapeForm = std::variant<NothingShape, AnyShape, NullShape, BooleanShape, NumberShape,
                               StringShape, ArrayShape, ObjectShape, ConstantShape, ChoiceShape>;

// Kinds of JSON values, as bits.
enum : uint8_t {
  kNullKind = 1,
  kBooleanKind = 2,
  kNumberKind = 4,
  kStringKind = 8,
  kArrayKind = 16,
  kObjectKind = 32,
  kAnyKind = 63
};
uint8_t kind_of(const nlohmann::ordered_json& value);

struct Shape {
  ShapeForm form;
  uint8_t kinds = kAnyKind;  // kinds that the schema allows, more perhaps than the form does
};

struct ShapeTable {
  std::vector<Shape> shapes;
  ShapeId root = 0;

  const Shape& at(ShapeId id) const { return shapes[static_cast<size_t>(id)]; }
};

// Which shapes have a value of finite size: a property that must contain itself has none.
std::vector<bool> finite_shapes(const ShapeTable& table);

// The table with only the objects among its values; refuses one that has none. For arguments.
base::Result<ShapeTable> objects_only(ShapeTable table, const std::string& where);

// Whether no value satisfies both schemas, as far as is easily seen.
bool exclude_each_other(const ShapeTable& table, ShapeId a, ShapeId b);

}  // namespace tandem::text
