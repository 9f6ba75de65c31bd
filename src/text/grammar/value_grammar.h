// Writes values of a shape as rules of a grammar, in JSON or in the family's call syntax.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/grammar/ebnf.h"
#include "text/grammar/shape.h"

namespace tandem::text {

// How values are spelled. JSON has white space of at most one blank, or a line end and up to 32
// blanks; the call syntax ({key:value,...}) has none, and strings between quote tokens.
struct Notation {
  std::optional<int32_t> quote_id;  // the call syntax, with this token for quotes; absent: JSON

  bool is_json() const { return !quote_id.has_value(); }
};

class ValueGrammar {
 public:
  ValueGrammar(Ebnf& ebnf, Notation notation);

  // The name of a rule for the values of the table's root. The table needs a value (finite_shapes).
  base::Result<std::string> write(const ShapeTable& table);
  // Any value, and any object. The names of rules.
  std::string any_value();
  std::string any_object();

 private:
  friend class ShapeWriter;

  std::string quoted(const std::string& element) const;
  std::string literal_string(std::string_view text) const;
  std::string key_literal(std::string_view name) const;
  std::string any_string();
  std::string space() const;
  std::string list(const std::string& open, const std::string& elements, const std::string& close);
  std::string pair(const std::string& key, const std::string& value) const;
  std::string separator() const;
  // A key that is none of `names`; nothing when that is too much to write.
  std::optional<std::string> other_key(const std::vector<std::string>& names);
  std::string constant(const nlohmann::ordered_json& value);

  Ebnf& ebnf_;
  Notation notation_;
  std::string space_;
  std::string any_value_;
};

}  // namespace tandem::text
