// Small input files of the commands.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem::cli {

// A whole text file, at most max_bytes.
base::Result<std::string> read_text_file(const std::filesystem::path& path, size_t max_bytes);

// A JSON list of ids in [0, vocab_size), 1 to max_tokens of them.
base::Result<std::vector<int32_t>> read_token_ids(const std::filesystem::path& path,
                                                  int64_t vocab_size, int64_t max_tokens);

}  // namespace tandem::cli
