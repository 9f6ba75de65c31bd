#include "text/grammar/schema_keywords.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::text {
namespace {

using nlohmann::ordered_json;

constexpr std::array<std::string_view, 14> kAnnotations = {
    "title",     "description", "default", "examples", "$comment",    "deprecated",    "readOnly",
    "writeOnly", "$schema",     "$defs",   "$id",      "definitions", "discriminator", "example"};

constexpr std::array<std::string_view, 27> kHeldTo = {"$ref",
                                                      "type",
                                                      "enum",
                                                      "const",
                                                      "properties",
                                                      "required",
                                                      "additionalProperties",
                                                      "propertyNames",
                                                      "minProperties",
                                                      "maxProperties",
                                                      "items",
                                                      "prefixItems",
                                                      "minItems",
                                                      "maxItems",
                                                      "uniqueItems",
                                                      "minLength",
                                                      "maxLength",
                                                      "pattern",
                                                      "format",
                                                      "minimum",
                                                      "maximum",
                                                      "exclusiveMinimum",
                                                      "exclusiveMaximum",
                                                      "anyOf",
                                                      "oneOf",
                                                      "allOf",
                                                      "multipleOf"};

template <size_t N>
bool is_in(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

// What the value of a keyword must be; empty when it is that.
std::string form_fault(std::string_view keyword, const ordered_json& value) {
  constexpr std::array<std::string_view, 4> kLists = {"prefixItems", "anyOf", "oneOf", "allOf"};
  constexpr std::array<std::string_view, 6> kCounts = {
      "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"};
  constexpr std::array<std::string_view, 4> kNumbers = {"minimum", "maximum", "exclusiveMinimum",
                                                        "exclusiveMaximum"};
  constexpr std::array<std::string_view, 3> kTexts = {"$ref", "pattern", "format"};
  constexpr double kMostCount = 1e9;
  const auto strings = [](const ordered_json& list) {
    return list.is_array() &&
           std::ranges::all_of(list, [](const ordered_json& item) { return item.is_string(); });
  };
  if (is_in(kLists, keyword) || keyword == "enum")
    return value.is_array() && !value.empty() ? "" : "a list that is not empty";
  if (is_in(kCounts, keyword)) {
    const double count = value.is_number() ? value.get<double>() : -1;
    return count >= 0 && count <= kMostCount && std::floor(count) == count ? "" : "a count";
  }
  if (is_in(kNumbers, keyword)) return value.is_number() ? "" : "a number";
  if (is_in(kTexts, keyword)) return value.is_string() ? "" : "a string";
  if (keyword == "properties") return value.is_object() ? "" : "an object";
  if (keyword == "required") return strings(value) ? "" : "a list of names";
  if (keyword == "type")
    return value.is_string() || strings(value) ? "" : "a type or a list of types";
  return "";
}

bool is_trivial_names(const ordered_json& schema) {
  if (schema.is_boolean()) return schema.get<bool>();
  if (!schema.is_object()) return false;
  const ordered_json rest = assertions_of(schema);
  return rest.empty() || (rest.size() == 1 && rest.contains("type") && rest["type"] == "string");
}

}  // namespace

bool is_annotation(std::string_view keyword) {
  return is_in(kAnnotations, keyword) || keyword.starts_with("x-");
}

base::Status check_keywords(const ordered_json& schema, const std::string& where,
                            const std::string& pointer) {
  for (const auto& [keyword, value] : schema.items()) {
    const std::string place = where + "#" + pointer + "/" + keyword;
    if (keyword == "$id" && !pointer.empty())
      return base::unsupported("{}: expected $id at the top of the schema only", place);
    if (is_annotation(keyword)) continue;
    if (!is_in(kHeldTo, keyword))
      return base::unsupported(
          "{}: expected a schema without \"{}\": answers cannot be held to this keyword", place,
          keyword);
    const std::string form = form_fault(keyword, value);
    if (!form.empty())
      return base::invalid("{}: expected {}, got {}", place, form, io::describe_json(value));
    if (keyword == "uniqueItems" && value != false)
      return base::unsupported("{}: expected false: a grammar cannot compare elements", place);
    if (keyword == "multipleOf" && value != 1)
      return base::unsupported("{}: expected 1: answers cannot be held to other multiples", place);
    if (keyword == "propertyNames" && !is_trivial_names(value))
      return base::unsupported(
          "{}: expected {{\"type\": \"string\"}}: answers cannot be held to rules for names",
          place);
  }
  return {};
}

ordered_json assertions_of(const ordered_json& schema) {
  ordered_json result = ordered_json::object();
  for (const auto& [keyword, value] : schema.items())
    if (!is_annotation(keyword)) result[keyword] = value;
  return result;
}

namespace {

// The types of both; `integer` is a part of `number`.
ordered_json common_types(const ordered_json& a, const ordered_json& b) {
  const auto list = [](const ordered_json& type) {
    return type.is_array() ? type : ordered_json::array({type});
  };
  const auto has = [](const ordered_json& types, const ordered_json& type) {
    return std::find(types.begin(), types.end(), type) != types.end();
  };
  ordered_json common = ordered_json::array();
  const ordered_json first = list(a), second = list(b);
  for (const auto& type : first) {
    if (has(second, type) || (type == "integer" && has(second, "number")))
      common.push_back(type);
    else if (type == "number" && has(second, "integer"))
      common.push_back("integer");
  }
  return common;
}

ordered_json both(const ordered_json& a, const ordered_json& b) {
  if (a == b) return a;
  return {{"allOf", ordered_json::array({a, b})}};
}

bool is_upper_bound(std::string_view keyword) {
  return keyword.starts_with("max") || keyword == "exclusiveMaximum";
}

class Merge {
 public:
  Merge(const ordered_json& a, const ordered_json& b, const std::string& where)
      : a_(a), b_(b), where_(where) {}

  base::Result<ordered_json> run() {
    TANDEM_RETURN_IF_ERROR(check_names(a_, b_));
    TANDEM_RETURN_IF_ERROR(check_names(b_, a_));
    if (has_elements(a_) && has_elements(b_) &&
        (a_.value("items", ordered_json()) != b_.value("items", ordered_json()) ||
         a_.value("prefixItems", ordered_json()) != b_.value("prefixItems", ordered_json())))
      return refuse("items");
    ordered_json result = a_;
    for (const auto& [keyword, value] : b_.items()) {
      if (!result.contains(keyword) || result[keyword] == value) {
        result[keyword] = value;
        continue;
      }
      TANDEM_RETURN_IF_ERROR(merge_keyword(keyword, value, result[keyword]));
    }
    return result;
  }

 private:
  static bool has_elements(const ordered_json& schema) {
    return schema.contains("items") || schema.contains("prefixItems");
  }

  tl::unexpected<base::Error> refuse(const std::string& keyword) const {
    return base::unsupported(
        "{}: expected parts (allOf, $ref, anyOf and what stands beside them) that can be put "
        "together, got two different \"{}\"",
        where_, keyword);
  }

  // additionalProperties speaks of the names that its own schema does not list.
  base::Status check_names(const ordered_json& schema, const ordered_json& other) const {
    const auto found = schema.find("additionalProperties");
    if (found == schema.end() || *found == true || !other.contains("properties")) return {};
    for (const auto& [name, value] : other["properties"].items())
      if (!schema.contains("properties") || !schema["properties"].contains(name))
        return refuse("additionalProperties");
    return {};
  }

  base::Status merge_keyword(const std::string& keyword, const ordered_json& value,
                             ordered_json& merged) const {
    if (keyword == "type") {
      merged = common_types(merged, value);
    } else if (keyword == "properties") {
      for (const auto& [name, schema] : value.items())
        merged[name] = merged.contains(name) ? both(merged[name], schema) : schema;
    } else if (keyword == "required") {
      for (const auto& name : value)
        if (std::find(merged.begin(), merged.end(), name) == merged.end()) merged.push_back(name);
    } else if (merged.is_number() && value.is_number() && keyword != "const" &&
               keyword != "multipleOf") {
      const bool takes = is_upper_bound(keyword) ? value < merged : value > merged;
      if (takes) merged = value;
    } else if (keyword == "enum" && merged.is_array() && value.is_array()) {
      ordered_json common = ordered_json::array();
      for (const auto& item : merged)
        if (std::find(value.begin(), value.end(), item) != value.end()) common.push_back(item);
      merged = std::move(common);
    } else {
      return refuse(keyword);
    }
    return {};
  }

  const ordered_json& a_;
  const ordered_json& b_;
  const std::string& where_;
};

}  // namespace

base::Result<ordered_json> merge_schemas(const ordered_json& a, const ordered_json& b,
                                         const std::string& where) {
  return Merge(a, b, where).run();
}

}  // namespace tandem::text
