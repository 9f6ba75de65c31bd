// Folders of configurations for pairs of random weights (LoadOptions::dummy): the 12B's, with other
// sizes.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace tandem::tests {

// Merges `patch` (JSON merge patch) into a file of JSON.
inline void patch_json(const std::filesystem::path& file, const nlohmann::json& patch) {
  nlohmann::json config = nlohmann::json::parse(std::ifstream(file));
  config.merge_patch(patch);
  std::ofstream(file) << config.dump(1);
}

// A copy of bench/configs/`name` that is called `copy`, to be patched. Returns its folder.
inline std::filesystem::path copy_config(const std::string& name, const std::string& copy) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / copy;
  fs::remove_all(folder);
  fs::copy(fs::path("bench/configs") / name, folder, fs::copy_options::recursive);
  return folder;
}

// A KV cache of E4M3; the scales of random weights are in the middle of the format.
inline void ask_for_e4m3_cache(const std::filesystem::path& folder) {
  patch_json(folder / "hf_quant_config.json", {{"quantization", {{"kv_cache_quant_algo", "FP8"}}}});
}

// Of few ids random drafts are accepted now and then, as the target's choice among them is no less
// random. No other id may be named.
inline void shrink_vocabulary(const std::filesystem::path& folder, int64_t vocab_size) {
  patch_json(folder / "config.json",
             {{"eos_token_id", 1}, {"text_config", {{"vocab_size", vocab_size}}}});
  patch_json(folder / "generation_config.json",
             {{"eos_token_id", 1}, {"suppress_tokens", nullptr}});
}

}  // namespace tandem::tests
