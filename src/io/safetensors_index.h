// Which files hold a model's tensors: one model.safetensors, or shards named by an index.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/safetensors.h"

namespace tandem::io {

inline constexpr const char* kSingleFileName = "model.safetensors";
inline constexpr const char* kIndexFileName = "model.safetensors.index.json";

// Opens all files of the folder. With an index: each shard is a plain name inside the folder, is
// there, holds exactly the tensors the index gives it, no tensor is in two shards, and total_size
// is the sum of the payloads. A folder with both, or with neither, is refused.
base::Result<std::vector<SafetensorsFile>> open_model_files(const std::filesystem::path& dir);

}  // namespace tandem::io
