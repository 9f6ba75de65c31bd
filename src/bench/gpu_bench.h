// tandem bench ops on an NVIDIA GPU: every kernel of a step alone, as it runs there, in a CUDA
// graph. gpu/ has the measurements, none/ says what a build without CUDA lacks.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/linear_shapes.h"

namespace tandem::bench {

// What a model's configs say of its kernels.
struct GpuModel {
  std::string prefix;  // of its kernels' names: "" or "draft "
  io::ModelConfig config;
  std::vector<LinearShape> shapes;
};

struct GpuOpsOptions {
  std::vector<int64_t> rows = {1, 5, 8, 16, 32, 64, 128, 192};
  std::vector<int64_t> prompt_rows = {512, 2048, 8192};
  std::string only = {};  // names that contain it; empty: all
};

// "NVIDIA H200, 132 multiprocessors"; says what is missing.
base::Result<std::string> gpu_description();
// Bytes per second of a kernel that only reads memory. Needs 4 GiB of the card for a moment.
base::Result<double> gpu_read_bandwidth();

// {"read_gb_per_s", "peer", "ops": [...], "prompt_ops": [...], "chains": [...], "kernels": [...]}.
// ops: the keys of run_ops_bench, and us_dependent, cublaslt_us, times_cublaslt (cublaslt_us / us).
// A product of few rows leaves partial sums, which the kernel behind it adds, gate and up the next
// operand ("with_gelu"), and a head of up to 8 rows its tokens ("with_argmax"); cuBLASLt leaves
// BF16, as do ours of prompts.
base::Result<nlohmann::ordered_json> run_gpu_ops_bench(const std::vector<GpuModel>& models,
                                                       const GpuOpsOptions& options);

std::string gpu_ops_table(const nlohmann::ordered_json& result);

}  // namespace tandem::bench
