#include "text/grammar/shape.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace tandem::text {
namespace {

constexpr int kMaxDepth = 8;  // of the comparison of two shapes

class Finiteness {
 public:
  explicit Finiteness(const ShapeTable& table)
      : table_(table), finite_(table.shapes.size(), false) {}

  std::vector<bool> run() {
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t i = 0; i < finite_.size(); ++i) {
        if (finite_[i] || !std::visit(*this, table_.shapes[i].form)) continue;
        finite_[i] = true;
        changed = true;
      }
    }
    return std::move(finite_);
  }

  bool operator()(const NothingShape&) const { return false; }
  bool operator()(const AnyShape&) const { return true; }
  bool operator()(const NullShape&) const { return true; }
  bool operator()(const BooleanShape&) const { return true; }
  bool operator()(const NumberShape&) const { return true; }
  bool operator()(const StringShape&) const { return true; }
  bool operator()(const ConstantShape&) const { return true; }
  bool operator()(const ChoiceShape& choice) const {
    return std::ranges::any_of(choice.shapes, [this](ShapeId id) { return has(id); });
  }
  bool operator()(const ObjectShape& object) const {
    return std::ranges::all_of(object.properties, [this](const ObjectShape::Property& property) {
      return !property.required || has(property.shape);
    });
  }
  bool operator()(const ArrayShape& array) const {
    const auto num_prefix = static_cast<int64_t>(array.prefix.size());
    for (int64_t i = 0; i < std::min(array.min_items, num_prefix); ++i)
      if (!has(array.prefix[static_cast<size_t>(i)])) return false;
    return array.min_items <= num_prefix || (array.items && has(*array.items));
  }

 private:
  bool has(ShapeId id) const { return finite_[static_cast<size_t>(id)]; }

  const ShapeTable& table_;
  std::vector<bool> finite_;
};

class Comparison {
 public:
  explicit Comparison(const ShapeTable& table) : table_(table) {}

  bool apart(ShapeId a, ShapeId b, int depth) const {
    const Shape& first = table_.at(a);
    const Shape& second = table_.at(b);
    if ((first.kinds & second.kinds) == 0) return true;
    if (depth > kMaxDepth) return false;
    if (std::holds_alternative<NothingShape>(first.form) ||
        std::holds_alternative<NothingShape>(second.form))
      return true;
    if (const auto* choice = std::get_if<ChoiceShape>(&first.form)) return all(*choice, b, depth);
    if (const auto* choice = std::get_if<ChoiceShape>(&second.form)) return all(*choice, a, depth);
    const auto* constant = std::get_if<ConstantShape>(&first.form);
    const auto* other = std::get_if<ConstantShape>(&second.form);
    // The order of an object's members makes no other value.
    if (constant != nullptr && other != nullptr)
      return nlohmann::json(*constant->value) != nlohmann::json(*other->value);
    // Both must be objects, whatever else their schemas allow.
    const auto* object = std::get_if<ObjectShape>(&first.form);
    const auto* object2 = std::get_if<ObjectShape>(&second.form);
    return object != nullptr && object2 != nullptr && first.kinds == kObjectKind &&
           second.kinds == kObjectKind &&
           (objects(*object, *object2, depth) || lacks(*object, *object2) ||
            lacks(*object2, *object));
  }

 private:
  bool all(const ChoiceShape& choice, ShapeId other, int depth) const {
    return std::ranges::all_of(choice.shapes,
                               [&](ShapeId id) { return apart(id, other, depth + 1); });
  }

  static const ObjectShape::Property* find(const ObjectShape& object, const std::string& name) {
    const auto found = std::ranges::find(object.properties, name, &ObjectShape::Property::name);
    return found == object.properties.end() ? nullptr : &*found;
  }

  // A property both must have, with values apart from each other.
  bool objects(const ObjectShape& a, const ObjectShape& b, int depth) const {
    return std::ranges::any_of(a.properties, [&](const ObjectShape::Property& property) {
      const auto* other = find(b, property.name);
      return property.required && other != nullptr && other->required &&
             apart(property.shape, other->shape, depth + 1);
    });
  }

  // A property that `a` must have and `b` cannot.
  static bool lacks(const ObjectShape& a, const ObjectShape& b) {
    if (b.schema_allows_others) return false;
    return std::ranges::any_of(a.properties, [&](const ObjectShape::Property& property) {
      return property.required && find(b, property.name) == nullptr;
    });
  }

  const ShapeTable& table_;
};

}  // namespace

uint8_t kind_of(const nlohmann::ordered_json& value) {
  if (value.is_null()) return kNullKind;
  if (value.is_boolean()) return kBooleanKind;
  if (value.is_number()) return kNumberKind;
  if (value.is_string()) return kStringKind;
  return value.is_array() ? kArrayKind : kObjectKind;
}

std::vector<bool> finite_shapes(const ShapeTable& table) {
  return Finiteness(table).run();
}

base::Result<ShapeTable> objects_only(ShapeTable table, const std::string& where) {
  const Shape& root = table.at(table.root);
  if (std::holds_alternative<ObjectShape>(root.form)) return table;
  if (std::holds_alternative<AnyShape>(root.form)) {
    // Any value as long as it is an object: whatever it has.
    const ShapeId any = table.root;
    ObjectShape object{.properties = {}, .others = any, .schema_allows_others = true};
    table.shapes.push_back({std::move(object), kObjectKind});
    table.root = static_cast<ShapeId>(table.shapes.size() - 1);
    return table;
  }
  if (const auto* choice = std::get_if<ChoiceShape>(&root.form)) {
    const bool objects = std::ranges::all_of(choice->shapes, [&table](ShapeId id) {
      return std::holds_alternative<ObjectShape>(table.at(id).form);
    });
    if (objects) return table;
  }
  return base::invalid("{}: expected the schema of an object", where);
}

bool exclude_each_other(const ShapeTable& table, ShapeId a, ShapeId b) {
  return Comparison(table).apart(a, b, 0);
}

}  // namespace tandem::text
