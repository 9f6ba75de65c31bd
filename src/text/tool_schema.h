// The JSON schemas of the tools of a request, as far as reading arguments needs them.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tandem::text {

// A node of a schema, or several of which a value follows one, or nothing where there is none.
// Whatever is malformed counts as nothing.
class SchemaNode {
 public:
  SchemaNode() = default;
  SchemaNode(const nlohmann::json* root, const nlohmann::json* node);

  SchemaNode property(const std::string& key) const;
  // Of the element at a place of a list.
  SchemaNode item(size_t index) const;
  // JSON schema type names that a value may have, unions included; empty if not told, or if one
  // part of a union does not tell.
  std::vector<std::string> types() const;

 private:
  // The least depth at which a node has been met: schemas may lead back to themselves many times.
  using Seen = std::unordered_map<const nlohmann::json*, int>;

  bool add_types(const nlohmann::json* node, int depth, Seen& seen,
                 std::vector<std::string>& types) const;
  std::vector<const nlohmann::json*> parts() const;
  const nlohmann::json* resolve(const nlohmann::json* node) const;

  const nlohmann::json* root_ = nullptr;  // where $ref starts
  std::vector<const nlohmann::json*> nodes_;
};

class ToolSchemas {
 public:
  // `tools` in OpenAI's form: [{"type": "function", "function": {"name", "parameters"}}, ...].
  static std::shared_ptr<const ToolSchemas> from_json(const nlohmann::json& tools);

  // Nodes point into this object.
  SchemaNode parameters(const std::string& tool_name) const;

 private:
  std::map<std::string, std::shared_ptr<const nlohmann::json>> parameters_;
};

}  // namespace tandem::text
