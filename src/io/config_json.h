// config.json as the readers see it: the file, changed by --hf-overrides.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "base/status.h"

namespace tandem::io {

// `hf_overrides`: a JSON object, or empty. Objects are merged key by key, other values replace; a
// key that only text_config has is meant for text_config. With fewer num_hidden_layers the lists of
// layers are cut to the first ones.
base::Result<nlohmann::json> read_config_json(const std::filesystem::path& dir,
                                              std::string_view hf_overrides);

}  // namespace tandem::io
