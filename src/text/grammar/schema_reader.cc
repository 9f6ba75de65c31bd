#include "text/grammar/schema_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "io/json.h"
#include "text/grammar/schema_keywords.h"
#include "text/grammar/schema_values.h"

namespace tandem::text {
namespace {

using nlohmann::ordered_json;

class Reader {
 public:
  Reader(const ordered_json& root, const std::string& where, const SchemaLimits& limits)
      : root_(root), where_(where), limits_(limits) {}

  base::Result<ShapeTable> run() {
    TANDEM_ASSIGN_OR_RETURN(table_.root, read(root_, ""));
    const std::vector<bool> finite = finite_shapes(table_);
    if (!finite[static_cast<size_t>(table_.root)])
      return base::invalid(
          "{}: expected a schema that some value satisfies, got one that none does", where_);
    for (const Alternatives& one_of : one_ofs_) TANDEM_RETURN_IF_ERROR(check_one_of(one_of));
    return std::move(table_);
  }

 private:
  struct Alternatives {
    std::vector<ShapeId> shapes;
    std::string pointer;
  };

  std::string at(const std::string& pointer) const { return where_ + "#" + pointer; }

  base::Result<ShapeId> add(Shape shape) {
    if (table_.shapes.size() >= limits_.max_shapes)
      return base::unsupported("{}: expected at most {} parts in a schema", where_,
                               limits_.max_shapes);
    table_.shapes.push_back(std::move(shape));
    return static_cast<ShapeId>(table_.shapes.size() - 1);
  }

  // The same schema twice is one shape; a schema inside itself is its own shape.
  base::Result<ShapeId> read(const ordered_json& schema, const std::string& pointer) {
    if (!schema.is_object() && !schema.is_boolean())
      return base::invalid("{}: expected a schema, got {}", at(pointer), io::describe_json(schema));
    std::string text = schema.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    const auto known = known_.find(text);
    if (known != known_.end()) return known->second;
    TANDEM_ASSIGN_OR_RETURN(const ShapeId id, add({NothingShape{}, kAnyKind}));
    known_.emplace(std::move(text), id);
    if (++depth_ > limits_.max_depth)
      return base::unsupported("{}: expected schemas nested at most {} deep", at(pointer),
                               limits_.max_depth);
    auto shape = read_new(schema, pointer);
    --depth_;
    if (!shape) return tl::unexpected<base::Error>(std::move(shape.error()));
    table_.shapes[static_cast<size_t>(id)] = std::move(*shape);
    return id;
  }

  base::Result<Shape> read_new(const ordered_json& schema, const std::string& pointer) {
    if (schema == true) return Shape{AnyShape{}, kAnyKind};
    if (schema == false) return Shape{NothingShape{}, 0};
    TANDEM_ASSIGN_OR_RETURN(const ordered_json plain, resolve(schema, pointer, 0));
    if (plain.is_boolean()) return read_new(plain, pointer);
    for (const char* keyword : {"anyOf", "oneOf"})
      if (plain.contains(keyword)) return read_choice(plain, keyword, pointer);
    if (plain.contains("enum") || plain.contains("const")) return read_constants(plain, pointer);
    return read_typed(plain, pointer);
  }

  // What a reference points to.
  base::Result<const ordered_json*> target_of(const std::string& reference,
                                              const std::string& pointer) const {
    const auto path = reference_path(reference);
    const ordered_json* target = path ? find_path(root_, *path) : nullptr;
    if (target != nullptr) return target;
    return base::unsupported(
        "{}/$ref: expected a reference to a part of this schema such as \"#/$defs/NAME\", got {}",
        at(pointer), io::describe_json(reference));
  }

  // The schema without $ref and allOf and without annotations.
  base::Result<ordered_json> resolve(const ordered_json& schema, const std::string& pointer,
                                     int num_steps) {
    if (!schema.is_object() && !schema.is_boolean())
      return base::invalid("{}: expected a schema, got {}", at(pointer), io::describe_json(schema));
    if (schema.is_boolean()) return schema;
    if (num_steps > limits_.max_depth)
      return base::invalid("{}: expected references that end somewhere, got a ring", at(pointer));
    TANDEM_RETURN_IF_ERROR(check_keywords(schema, where_, pointer));
    ordered_json result = assertions_of(schema);
    std::vector<std::pair<const ordered_json*, std::string>> parts;
    if (schema.contains("$ref")) {
      TANDEM_ASSIGN_OR_RETURN(const ordered_json* target,
                              target_of(schema["$ref"].get<std::string>(), pointer));
      parts.emplace_back(target, pointer + "/$ref");
    }
    if (schema.contains("allOf"))
      for (size_t i = 0; i < schema["allOf"].size(); ++i)
        parts.emplace_back(&schema["allOf"][i], fmt::format("{}/allOf/{}", pointer, i));
    result.erase("$ref");
    result.erase("allOf");
    for (const auto& [part, place] : parts) {
      TANDEM_ASSIGN_OR_RETURN(const ordered_json other, resolve(*part, place, num_steps + 1));
      if (other == false) return other;
      if (other == true) continue;
      TANDEM_ASSIGN_OR_RETURN(result, merge_schemas(result, other, at(place)));
    }
    return result;
  }

  base::Result<Shape> read_choice(const ordered_json& schema, const char* keyword,
                                  const std::string& pointer) {
    ordered_json beside = schema;
    beside.erase(keyword);
    if (beside.contains("oneOf"))
      return base::unsupported("{}: expected one of anyOf and oneOf, got both", at(pointer));
    ChoiceShape choice;
    Shape shape;
    shape.kinds = 0;
    for (size_t i = 0; i < schema[keyword].size(); ++i) {
      const std::string place = fmt::format("{}/{}/{}", pointer, keyword, i);
      const ordered_json* branch = &schema[keyword][i];
      ordered_json merged;
      if (!beside.empty()) {
        TANDEM_ASSIGN_OR_RETURN(merged, resolve(*branch, place, 0));
        if (merged == true) merged = beside;
        if (merged.is_object()) {
          TANDEM_ASSIGN_OR_RETURN(merged, merge_schemas(beside, merged, at(place)));
        }
        branch = &merged;
      }
      TANDEM_ASSIGN_OR_RETURN(const ShapeId id, read(*branch, place));
      choice.shapes.push_back(id);
      // Of a schema inside itself nothing is known yet: kAnyKind.
      shape.kinds |= table_.at(id).kinds;
    }
    if (std::string_view(keyword) == "oneOf")
      one_ofs_.push_back({choice.shapes, pointer + "/oneOf"});
    shape.form = std::move(choice);
    return shape;
  }

  base::Status check_one_of(const Alternatives& one_of) const {
    for (size_t i = 0; i < one_of.shapes.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (exclude_each_other(table_, one_of.shapes[i], one_of.shapes[j])) continue;
        return base::unsupported(
            "{}: expected alternatives that plainly exclude each other (other types, or a required "
            "property with other constants), got {} and {}; anyOf has no such condition",
            at(one_of.pointer), j, i);
      }
    }
    return {};
  }

  base::Result<Shape> read_constants(const ordered_json& schema, const std::string& pointer) {
    for (const auto& [keyword, value] : schema.items())
      if (keyword != "enum" && keyword != "const" && keyword != "type")
        return base::unsupported("{}/{}: expected nothing but type beside enum and const",
                                 at(pointer), keyword);
    TANDEM_ASSIGN_OR_RETURN(const Types types, read_types(schema, at(pointer)));
    ordered_json values = schema.value("enum", ordered_json::array());
    if (schema.contains("const")) {
      const ordered_json& constant = schema["const"];
      const bool listed = !schema.contains("enum") ||
                          std::find(values.begin(), values.end(), constant) != values.end();
      values = listed ? ordered_json::array({constant}) : ordered_json::array();
    }
    ChoiceShape choice;
    Shape shape;
    shape.kinds = 0;
    for (const ordered_json& value : values) {
      if (!types.allow(value)) continue;
      TANDEM_ASSIGN_OR_RETURN(
          const ShapeId id,
          add({ConstantShape{std::make_shared<const ordered_json>(value)}, kind_of(value)}));
      choice.shapes.push_back(id);
      shape.kinds |= kind_of(value);
    }
    shape.form = std::move(choice);
    return shape;
  }

  // Without `type` a keyword that speaks of one type means that type, as everybody writes it; the
  // schema's own kinds stay.
  base::Result<Shape> read_typed(const ordered_json& schema, const std::string& pointer) {
    TANDEM_ASSIGN_OR_RETURN(Types types, read_types(schema, at(pointer)));
    const uint8_t kinds = types.kinds;
    if (!schema.contains("type")) {
      const uint8_t spoken_of = kinds_spoken_of(schema);
      if (spoken_of == 0) return Shape{AnyShape{}, kAnyKind};
      types.kinds = spoken_of;
    }
    std::vector<ShapeForm> forms;
    if ((types.kinds & kNullKind) != 0) forms.emplace_back(NullShape{});
    if ((types.kinds & kBooleanKind) != 0) forms.emplace_back(BooleanShape{});
    if ((types.kinds & kNumberKind) != 0) {
      TANDEM_ASSIGN_OR_RETURN(ShapeForm form,
                              read_number(schema, types.integers_only, at(pointer)));
      forms.push_back(std::move(form));
    }
    if ((types.kinds & kStringKind) != 0) {
      TANDEM_ASSIGN_OR_RETURN(ShapeForm form,
                              read_string(schema, limits_.max_min_length, at(pointer)));
      forms.push_back(std::move(form));
    }
    if ((types.kinds & kArrayKind) != 0) {
      TANDEM_ASSIGN_OR_RETURN(ShapeForm form, read_array(schema, pointer));
      forms.push_back(std::move(form));
    }
    if ((types.kinds & kObjectKind) != 0) {
      TANDEM_ASSIGN_OR_RETURN(ShapeForm form, read_object(schema, pointer));
      forms.push_back(std::move(form));
    }
    if (forms.empty()) return Shape{NothingShape{}, 0};
    if (forms.size() == 1) return Shape{std::move(forms[0]), kinds};
    ChoiceShape choice;
    for (ShapeForm& form : forms) {
      TANDEM_ASSIGN_OR_RETURN(const ShapeId id, add({std::move(form), kinds}));
      choice.shapes.push_back(id);
    }
    return Shape{std::move(choice), kinds};
  }

  base::Result<ShapeForm> read_array(const ordered_json& schema, const std::string& pointer) {
    ArrayShape array;
    array.min_items = count_of(schema, "minItems").value_or(0);
    array.max_items = count_of(schema, "maxItems").value_or(-1);
    const ordered_json prefix = schema.value("prefixItems", ordered_json::array());
    for (size_t i = 0; i < prefix.size(); ++i) {
      TANDEM_ASSIGN_OR_RETURN(const ShapeId id,
                              read(prefix[i], fmt::format("{}/prefixItems/{}", pointer, i)));
      array.prefix.push_back(id);
    }
    const auto num_prefix = static_cast<int64_t>(array.prefix.size());
    if (schema.contains("items")) {
      TANDEM_ASSIGN_OR_RETURN(array.items, read(schema["items"], pointer + "/items"));
    } else if (prefix.empty() || array.min_items > num_prefix) {
      TANDEM_ASSIGN_OR_RETURN(array.items, read(true, pointer));
    }
    for (const int64_t count : {array.min_items, array.max_items})
      if (count > limits_.max_items)
        return base::unsupported("{}: expected minItems and maxItems up to {}, got {}", at(pointer),
                                 limits_.max_items, count);
    if (array.max_items >= 0 && array.max_items < array.min_items) return NothingShape{};
    return array;
  }

  base::Result<ShapeForm> read_object(const ordered_json& schema, const std::string& pointer) {
    ObjectShape object;
    const ordered_json properties = schema.value("properties", ordered_json::object());
    const ordered_json required = schema.value("required", ordered_json::array());
    const ordered_json others = schema.value("additionalProperties", ordered_json());
    object.schema_allows_others = others != false;
    for (const auto& [name, value] : properties.items()) {
      TANDEM_ASSIGN_OR_RETURN(const ShapeId id,
                              read(value, pointer + "/properties/" + escape_pointer(name)));
      const bool needed = std::find(required.begin(), required.end(), name) != required.end();
      object.properties.push_back({name, id, needed});
    }
    const bool open = others.is_null() && !schema.contains("properties");
    const ordered_json other_schema = others.is_null() ? ordered_json(true) : others;
    TANDEM_ASSIGN_OR_RETURN(const ShapeId rest,
                            read(other_schema, pointer + "/additionalProperties"));
    if (open || !others.is_null()) object.others = rest;
    for (const auto& name : required) {
      if (properties.contains(name.get<std::string>())) continue;
      const auto same = std::ranges::find(object.properties, name.get<std::string>(),
                                          &ObjectShape::Property::name);
      if (same == object.properties.end())
        object.properties.push_back({name.get<std::string>(), rest, true});
    }
    TANDEM_RETURN_IF_ERROR(check_property_counts(schema, object, at(pointer)));
    return object;
  }

  const ordered_json& root_;
  const std::string& where_;
  SchemaLimits limits_;
  ShapeTable table_;
  std::unordered_map<std::string, ShapeId> known_;  // by the schema's text
  std::vector<Alternatives> one_ofs_;
  int depth_ = 0;
};

}  // namespace

base::Result<ShapeTable> read_schema(const ordered_json& schema, const std::string& where,
                                     const SchemaLimits& limits) {
  return Reader(schema, where, limits).run();
}

}  // namespace tandem::text
