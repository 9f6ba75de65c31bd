// The prompts that calibrate when the user gives none.
#pragma once

#include <span>
#include <string_view>

namespace tandem::quantize {

// 32 user messages across tasks, lengths and languages, written for this project. The order mixes
// tasks, so that the first few are a sample too.
std::span<const std::string_view> default_prompts();

}  // namespace tandem::quantize
