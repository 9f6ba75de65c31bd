// The products of a model: each alone, and those of a layer one after the other.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "base/status.h"
#include "bench/gpu/cublas_lt.h"
#include "bench/linear_shapes.h"

namespace tandem::bench {

struct GpuFacts {
  int num_multiprocessors = 0;
  double read_bandwidth = 0;          // bytes per second
  const CublasLt* library = nullptr;  // null: not installed
};

// Device memory of zeros.
ops::cuda::DeviceBuffer zeros(int64_t size_bytes);

// Tiles of 8 rows that the product of so many takes.
int num_tiles(int64_t rows);

// Refuses formats that a GPU does not run.
base::Result<ops::cuda::PackedType> packed_type(const LinearShape& shape);

// One entry for each number of rows. Weights come from memory: 400 MB of copies at least, in turn.
nlohmann::ordered_json bench_product(const GpuFacts& facts, const LinearShape& shape,
                                     ops::cuda::PackedType type, std::span<const int64_t> rows);

// A head through its screen, for rows of bench_product()'s lines of it: those of 64 at most. What
// is read counts as the screen alone.
nlohmann::ordered_json bench_screened_head(const GpuFacts& facts, const LinearShape& shape,
                                           const nlohmann::ordered_json& head_lines);

// With the kernels that prompts go through, FP8 alone; one entry for each number of rows:
// {"name", "rows", "us", "tflop_per_s", "cublaslt_us", "times_cublaslt"}.
nlohmann::ordered_json bench_wide_product(const GpuFacts& facts, const LinearShape& shape,
                                          std::span<const int64_t> rows);

// The products of `layer` again and again, as in a step; one entry for each number of rows up
// to 64.
nlohmann::ordered_json bench_chain(const GpuFacts& facts, const std::string& name,
                                   const std::vector<const LinearShape*>& layer,
                                   std::span<const int64_t> rows);

// "cublaslt_us" and "times_cublaslt" of an entry with "us"; peer_us 0: the library has nothing to
// say.
void add_peer(nlohmann::ordered_json& entry, double peer_us);

}  // namespace tandem::bench
