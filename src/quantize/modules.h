// Which projections belong together, and how a list of unquantized modules is written down.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/checkpoint.h"

namespace tandem::quantize {

// Modules that every format of the family keeps in BF16: pre_projection, post_projection, lm_head.
bool always_bf16(std::string_view canonical_module);

// Canonical modules that may be quantized, in layer order.
std::vector<std::string> quantizable_modules(const io::Checkpoint& checkpoint);

// The projection whose observation stands for a module's: q_proj for q, k, v; gate_proj for gate
// and up; the module itself otherwise.
std::string shared_input(std::string_view canonical_module);

// Modules with the same shared_input, in order: what engines fuse, and so must agree in precision.
std::vector<std::vector<std::string>> fused_groups(const std::vector<std::string>& modules);

// The modules that a user's patterns name, in any spelling (module_patterns.h). A pattern that
// names none is refused.
base::Result<std::set<std::string>> select_modules(const std::vector<std::string>& patterns,
                                                   const std::vector<std::string>& modules,
                                                   const std::string& where);

// ModelOpt's exclusion list (modelopt_fp8 3.1): sorted; each name is shortened at a dot to
// `prefix*` when no quantized module begins with the prefix, to `prefix.*` when none lies below it,
// and stays whole otherwise. Names as stored in the files.
std::vector<std::string> exclusion_list(const std::vector<std::string>& unquantized,
                                        const std::vector<std::string>& quantized);

}  // namespace tandem::quantize
