// Flags of vLLM that change nothing here, are only right with one value, or are refused by name.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "cli/serve_flags.h"

namespace tandem::cli {

void add_foreign_flags(CLI::App& command, std::vector<ServeFlags::Foreign>& given);

// Refuses what would change the result; else notes that the flag changes nothing.
base::Status check_foreign_flags(const std::vector<ServeFlags::Foreign>& given,
                                 std::vector<std::string>& notes);

// For `serve`, -tp means --tensor-parallel-size, and so on, as in vLLM.
void accept_short_names(std::vector<std::string>& arguments);

}  // namespace tandem::cli
