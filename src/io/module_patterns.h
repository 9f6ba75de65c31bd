// The exclusion lists of quantized checkpoints: which modules stay BF16.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tandem::io {

// The names a canonical module ("layers.3.mlp.up_proj") has in the files of this family.
std::vector<std::string> module_spellings(std::string_view canonical_module);

// Shell-style wildcards (*, ?, [a-z], [!a]), the whole name. Never worse than the product of
// both lengths.
bool matches_wildcard(std::string_view pattern, std::string_view name);

class ModulePatterns {
 public:
  // ModelOpt: a name excludes the module and what is inside it; `prefix*` does the same and ends at
  // a dot (layers.1* is not layers.10); `prefix.*` excludes what is inside; other wildcards match
  // as in a shell.
  static ModulePatterns modelopt(std::vector<std::string> entries);
  // compressed-tensors: names, and "re:" followed by a regular expression that matches from the
  // start. Literals, ".", escapes, "*", "+", "?", "^" and "$" are understood; other expressions are
  // refused with `where`.
  static base::Result<ModulePatterns> compressed(std::vector<std::string> entries,
                                                 const std::string& where);

  // Any spelling of the module, any entry.
  bool matches(std::string_view canonical_module) const;
  // The entry that matched, for messages; empty when none does.
  std::string matching_entry(std::string_view canonical_module) const;

 private:
  bool entry_matches(const std::string& entry, std::string_view name) const;

  std::vector<std::string> entries_;
};

// "re:" expressions, without the prefix.
base::Status check_regex(std::string_view expression, const std::string& where);
bool matches_regex(std::string_view expression, std::string_view name);

}  // namespace tandem::io
