#include "text/tool_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/ascii.h"

namespace tandem::text {
namespace {

using nlohmann::json;

constexpr int kMaxUnionDepth = 8;  // anyOf inside anyOf, $ref to $ref

const json* member(const json* object, const char* key) {
  if (object == nullptr || !object->is_object()) return nullptr;
  const auto found = object->find(key);
  return found == object->end() ? nullptr : &*found;
}

std::string type_of_value(const json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "boolean";
  if (value.is_number_integer()) return "integer";
  if (value.is_number()) return "number";
  if (value.is_string()) return "string";
  return value.is_array() ? "array" : "object";
}

void add_type(std::string type, std::vector<std::string>& types) {
  if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(std::move(type));
}

}  // namespace

SchemaNode::SchemaNode(const json* root, const json* node) : root_(root), node_(resolve(node)) {}

// Follows "#/..." references; anything else stays unknown.
const json* SchemaNode::resolve(const json* node) const {
  for (int hops = 0; hops < kMaxUnionDepth; ++hops) {
    const json* reference = member(node, "$ref");
    if (reference == nullptr) return node;
    if (root_ == nullptr || !reference->is_string()) return nullptr;
    const std::string& path = reference->get_ref<const std::string&>();
    if (!path.starts_with("#/")) return nullptr;
    node = root_;
    for (size_t at = 2; at <= path.size() && node != nullptr;) {
      const size_t end = std::min(path.find('/', at), path.size());
      node = member(node, path.substr(at, end - at).c_str());
      at = end + 1;
    }
  }
  return nullptr;
}

SchemaNode SchemaNode::property(const std::string& key) const {
  const json* properties = member(node_, "properties");
  if (const json* found = member(properties, key.c_str())) return {root_, found};
  return {root_, member(node_, "additionalProperties")};
}

SchemaNode SchemaNode::item(size_t index) const {
  const json* prefix = member(node_, "prefixItems");
  if (prefix != nullptr && prefix->is_array() && index < prefix->size())
    return {root_, &(*prefix)[index]};
  return {root_, member(node_, "items")};
}

std::vector<std::string> SchemaNode::types() const {
  std::vector<std::string> types;
  Seen seen;
  if (node_ != nullptr) add_types(*node_, 0, seen, types);
  return types;
}

void SchemaNode::add_types(const json& node, int depth, Seen& seen,
                           std::vector<std::string>& types) const {
  if (depth > kMaxUnionDepth) return;
  const auto [known, is_new] = seen.try_emplace(&node, depth);
  if (!is_new && known->second <= depth) return;
  known->second = depth;
  if (const json* type = member(&node, "type")) {
    // Template writers spell types in upper case too.
    if (type->is_string()) add_type(base::lower_case(type->get<std::string>()), types);
    if (type->is_array()) {
      for (const json& item : *type) {
        if (item.is_string()) add_type(base::lower_case(item.get<std::string>()), types);
      }
    }
    if (const json* nullable = member(&node, "nullable"); nullable && *nullable == json(true))
      add_type("null", types);
    return;
  }
  if (const json* constant = member(&node, "const")) add_type(type_of_value(*constant), types);
  if (const json* values = member(&node, "enum"); values && values->is_array()) {
    for (const json& value : *values) add_type(type_of_value(value), types);
  }
  for (const char* key : {"anyOf", "oneOf", "allOf"}) {
    const json* choices = member(&node, key);
    if (choices == nullptr || !choices->is_array()) continue;
    for (const json& choice : *choices) {
      if (const json* resolved = resolve(&choice)) add_types(*resolved, depth + 1, seen, types);
    }
  }
}

std::shared_ptr<const ToolSchemas> ToolSchemas::from_json(const json& tools) {
  auto schemas = std::make_shared<ToolSchemas>();
  if (!tools.is_array()) return schemas;
  for (const json& tool : tools) {
    const json* function = member(&tool, "function");
    const json* name = member(function, "name");
    const json* parameters = member(function, "parameters");
    if (name != nullptr && name->is_string() && parameters != nullptr) {
      schemas->parameters_[name->get<std::string>()] = std::make_shared<const json>(*parameters);
    }
  }
  return schemas;
}

SchemaNode ToolSchemas::parameters(const std::string& tool_name) const {
  const auto found = parameters_.find(tool_name);
  if (found == parameters_.end()) return {};
  return {found->second.get(), found->second.get()};
}

}  // namespace tandem::text
