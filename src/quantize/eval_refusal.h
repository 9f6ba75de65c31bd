// Why a checkpoint that the loader refused is no good export.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace tandem::quantize {

// For a folder and the loader's message: a sentence for a user when scales are missing or a module
// has the wrong precision, else nothing.
std::string explain_refusal(const std::filesystem::path& dir, std::string_view refusal);

}  // namespace tandem::quantize
