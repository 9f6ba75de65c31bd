// The kernels between the products of a model, each at the model's shapes, in a CUDA graph.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "bench/gpu/product_bench.h"
#include "bench/gpu_bench.h"
#include "core/bf16.h"

namespace tandem::bench {

// Adds to `results` one entry: {"name", "rows", "us" (after each other without dependent launch),
// "us_dependent" (as in a step), ...more}. `launch` is called with 0, 1, 2, ... so that it can take
// other memory each time; `launches` of them make a graph.
void add_kernel(nlohmann::ordered_json& results, const nlohmann::ordered_json& entry, int launches,
                const std::function<void(const ops::cuda::Stream&, int)>& launch);

// Attention over keys and values that come from memory, and what makes its inputs. "batch", "keys",
// "bytes", "ideal_us", "share_of_read" (of us_dependent).
void bench_attention_kernels(const GpuFacts& facts, const GpuModel& model, const std::string& only,
                             nlohmann::ordered_json& results);

// Norms, activation, embedding and what is made of a head's sums. What they read was written a
// moment ago in a step and lies in L2 here too, so memory is no bound: "bytes" are what they read.
void bench_row_kernels(const GpuFacts& facts, const GpuModel& model, const std::string& only,
                       nlohmann::ordered_json& results);

// Sums as a product in -> out would leave them, cut as packed_linear.h cuts it; no data yet.
ops::cuda::Partials partials_of(const GpuFacts& facts, int64_t in, int64_t out, int num_rows);
// What a kernel reads of them for `rows` rows.
double partial_bytes(const ops::cuda::Partials& sums, int64_t columns, int64_t rows);

inline bool wanted(const std::string& name, const std::string& only) {
  return name.find(only) != std::string::npos;
}

}  // namespace tandem::bench
