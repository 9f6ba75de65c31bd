// Which keywords of JSON Schema are held to, and how two schemas become one that means both.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tandem::text {

// Tells about a value and constrains nothing.
bool is_annotation(std::string_view keyword);
// Every other keyword of `schema` must be one that is held to; the message names the first that is
// not by its JSON pointer: `WHERE#/properties/a/not: ...`.
base::Status check_keywords(const nlohmann::ordered_json& schema, const std::string& where,
                            const std::string& pointer);

// Without annotations.
nlohmann::ordered_json assertions_of(const nlohmann::ordered_json& schema);
// A schema that holds where both hold. Neither has $ref or allOf; both are checked objects. Refuses
// pairs whose conjunction has no such form.
base::Result<nlohmann::ordered_json> merge_schemas(const nlohmann::ordered_json& a,
                                                   const nlohmann::ordered_json& b,
                                                   const std::string& where);

}  // namespace tandem::text
