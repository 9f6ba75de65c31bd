// Parts of a JSON schema that hold no schemas: types, numbers, strings, references.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/grammar/shape.h"

namespace tandem::text {

struct Types {
  uint8_t kinds = kAnyKind;
  bool integers_only = false;  // of numbers

  bool allow(const nlohmann::ordered_json& value) const;
};
base::Result<Types> read_types(const nlohmann::ordered_json& schema, const std::string& where);
// The kinds that a schema's keywords are about; 0 for a schema without such keywords.
uint8_t kinds_spoken_of(const nlohmann::ordered_json& schema);

base::Result<ShapeForm> read_number(const nlohmann::ordered_json& schema, bool integers_only,
                                    const std::string& where);
base::Result<ShapeForm> read_string(const nlohmann::ordered_json& schema, int64_t max_min_length,
                                    const std::string& where);
// Only bounds that hold anyway: a grammar does not count optional properties.
base::Status check_property_counts(const nlohmann::ordered_json& schema, const ObjectShape& object,
                                   const std::string& where);

std::optional<int64_t> count_of(const nlohmann::ordered_json& schema, const char* keyword);

// JSON pointers: a name in one, the parts of a reference (nothing unless it begins with `#`), and
// what they lead to.
std::string escape_pointer(std::string_view name);
std::optional<std::vector<std::string>> reference_path(std::string_view reference);
const nlohmann::ordered_json* find_path(const nlohmann::ordered_json& root,
                                        const std::vector<std::string>& path);

}  // namespace tandem::text
