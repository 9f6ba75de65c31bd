// The flags that say which pair runs and how: shared by every command that opens one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "engine/runtime.h"

namespace CLI {
class App;
}

namespace tandem::cli {

struct ModelFlags {
  std::string target;
  std::string speculative_config;  // JSON; empty: plain decoding
  std::string compute = "native";
  std::string fp8_arithmetic = "checkpoint";
  std::string draft_head = "auto";
  std::string head_screen = "on";
  std::string cpu_weights = "mapped";
  std::string device = "auto";
  double gpu_memory_utilization = 0.9;
  bool enforce_eager = false;
  int threads = 0;
  int64_t max_num_seqs = 8;
  int64_t max_num_batched_tokens = 512;
  int64_t max_model_len = 0;
  std::optional<double> kv_cache_gib;  // absent: 4 on a CPU, what the card has left on a GPU
  std::string kv_cache_dtype = "auto";
  bool prefix_caching = true;
  std::string load_format = "auto";
  std::string hf_overrides;  // JSON; empty: none
};

// Adds the target and the flags of ModelFlags to a command.
void add_model_flags(CLI::App& command, ModelFlags& flags);

// `said`: what a flag says the weights in `dir` are (none, modelopt, compressed-tensors); empty:
// nothing.
base::Status check_quantization(std::string_view where, std::string_view said,
                                const io::QuantizationInfo& info, const std::filesystem::path& dir);

// Reads no weights yet but refuses what no weights could make right.
base::Result<engine::RuntimeOptions> runtime_options(const ModelFlags& flags);

// Opens the pair with a progress bar while weights are read.
base::Result<std::unique_ptr<engine::Runtime>> open_runtime(engine::RuntimeOptions options);

}  // namespace tandem::cli
