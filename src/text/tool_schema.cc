#include "text/tool_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/ascii.h"
#include "text/grammar/schema_values.h"

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

constexpr const char* kUnions[] = {"anyOf", "oneOf", "allOf"};

}  // namespace

SchemaNode::SchemaNode(const json* root, const json* node) : root_(root) {
  nodes_.push_back(resolve(node));
}

// Follows references into the schema; anything else stays unknown.
const json* SchemaNode::resolve(const json* node) const {
  for (int hops = 0; hops < kMaxUnionDepth; ++hops) {
    const json* reference = member(node, "$ref");
    if (reference == nullptr) return node;
    if (root_ == nullptr || !reference->is_string()) return nullptr;
    const auto path = reference_path(reference->get_ref<const std::string&>());
    if (!path) return nullptr;
    node = root_;
    for (const std::string& name : *path) node = member(node, name.c_str());
  }
  return nullptr;
}

// The nodes and what their unions are made of, each once.
std::vector<const json*> SchemaNode::parts() const {
  std::vector<const json*> found;
  std::unordered_map<const json*, int> depths;
  const auto add = [&](const json* node, int depth) {
    if (node == nullptr || depth > kMaxUnionDepth) return;
    if (depths.try_emplace(node, depth).second) found.push_back(node);
  };
  for (const json* node : nodes_) add(node, 0);
  for (size_t i = 0; i < found.size(); ++i) {
    for (const char* key : kUnions) {
      const json* choices = member(found[i], key);
      if (choices == nullptr || !choices->is_array()) continue;
      for (const json& choice : *choices) add(resolve(&choice), depths[found[i]] + 1);
    }
  }
  return found;
}

SchemaNode SchemaNode::property(const std::string& key) const {
  SchemaNode listed, others;
  listed.root_ = others.root_ = root_;
  for (const json* part : parts()) {
    if (const json* found = member(member(part, "properties"), key.c_str())) {
      listed.nodes_.push_back(resolve(found));
    } else if (const json* other = member(part, "additionalProperties")) {
      others.nodes_.push_back(resolve(other));
    }
  }
  return listed.nodes_.empty() ? others : listed;
}

SchemaNode SchemaNode::item(size_t index) const {
  SchemaNode result;
  result.root_ = root_;
  for (const json* part : parts()) {
    const json* prefix = member(part, "prefixItems");
    if (prefix != nullptr && prefix->is_array() && index < prefix->size()) {
      result.nodes_.push_back(resolve(&(*prefix)[index]));
    } else if (const json* items = member(part, "items")) {
      result.nodes_.push_back(resolve(items));
    }
  }
  return result;
}

std::vector<std::string> SchemaNode::types() const {
  std::vector<std::string> types;
  Seen seen;
  for (const json* node : nodes_)
    if (!add_types(node, 0, seen, types)) return {};
  return types;
}

// False if the node may have types that it does not tell.
bool SchemaNode::add_types(const json* node, int depth, Seen& seen,
                           std::vector<std::string>& types) const {
  if (node == nullptr || depth > kMaxUnionDepth) return false;
  const auto [known, is_new] = seen.try_emplace(node, depth);
  if (!is_new && known->second <= depth) return true;
  known->second = depth;
  if (const json* type = member(node, "type")) {
    // Template writers spell types in upper case too.
    if (type->is_string()) add_type(base::lower_case(type->get<std::string>()), types);
    if (type->is_array()) {
      for (const json& item : *type) {
        if (item.is_string()) add_type(base::lower_case(item.get<std::string>()), types);
      }
    }
    if (const json* nullable = member(node, "nullable"); nullable && *nullable == json(true))
      add_type("null", types);
    return true;
  }
  bool told = false;
  if (const json* constant = member(node, "const")) {
    add_type(type_of_value(*constant), types);
    told = true;
  }
  if (const json* values = member(node, "enum"); values && values->is_array()) {
    for (const json& value : *values) add_type(type_of_value(value), types);
    told = true;
  }
  for (const char* key : kUnions) {
    const json* choices = member(node, key);
    if (choices == nullptr || !choices->is_array()) continue;
    size_t num_told = 0;
    for (const json& choice : *choices)
      num_told += add_types(resolve(&choice), depth + 1, seen, types) ? 1U : 0U;
    // All of allOf hold: one that tells is enough.
    told |= std::string_view(key) == "allOf" ? num_told > 0 : num_told == choices->size();
  }
  return told;
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
