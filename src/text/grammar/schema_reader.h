// Reads a JSON schema (draft 2020-12, and what draft 7 shares with it) into shapes, or says which
// part of it answers cannot be held to.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/status.h"
#include "text/grammar/shape.h"

namespace tandem::text {

struct SchemaLimits {
  size_t max_shapes = 4000;
  int max_depth = 100;          // of schemas in schemas, references included
  int64_t max_min_length = 64;  // each of them is a state of an automaton
  int64_t max_items = 1000;     // in minItems and maxItems
};

// `where` begins every message: `WHERE#/properties/a/not: expected ...`.
base::Result<ShapeTable> read_schema(const nlohmann::ordered_json& schema, const std::string& where,
                                     const SchemaLimits& limits = {});

}  // namespace tandem::text
