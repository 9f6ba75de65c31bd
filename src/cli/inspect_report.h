// What `tandem inspect` finds out about a model folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/checkpoint.h"

namespace tandem::cli {

struct ScaleRange {
  float min = 0, median = 0, max = 0;
};

// All Linear modules of one name, over the layers: "self_attn.q_proj".
struct ModuleKind {
  std::string name;
  std::string format;
  int64_t count = 0;
  int64_t num_parameters = 0;
  int64_t size_bytes = 0;
  std::optional<ScaleRange> weight_scale = std::nullopt;
  std::optional<ScaleRange> input_scale = std::nullopt;
};

// Whether a folder beside this one, or the one the user named, makes a pair with it.
struct Partner {
  std::filesystem::path dir;
  std::string model_type;
  bool fits = false;
  std::string reason;  // why not
};

struct KvMemory {
  core::DType dtype = core::DType::kBF16;  // what --kv-cache-dtype auto takes
  int64_t bytes_per_token = 0;             // full layers
  int64_t bytes_per_sequence = 0;          // the rings of the sliding layers
  int64_t length = 0;
  int64_t bytes_at_length = 0;  // of one sequence of that length
};

struct InspectReport {
  std::filesystem::path dir;
  io::ModelConfig config;
  io::GenerationConfig generation;
  io::QuantizationInfo quantization;
  std::vector<ModuleKind> modules;
  int64_t num_parameters = 0;  // of what Tandem runs, tied weights once
  int64_t weight_bytes = 0;
  int64_t skipped_bytes = 0;                     // vision and audio towers
  std::optional<KvMemory> kv;                    // targets
  std::optional<ScaleRange> k_scales, v_scales;  // calibrated ones
  std::vector<Partner> partners;
};

struct InspectOptions {
  std::string partner;  // empty: look at the folders beside this one
  int64_t length = 8192;
  bool check_values = false;
};

base::Result<InspectReport> inspect(const std::filesystem::path& dir,
                                    const InspectOptions& options);

nlohmann::ordered_json report_json(const InspectReport& report);
std::string report_text(const InspectReport& report);

}  // namespace tandem::cli
