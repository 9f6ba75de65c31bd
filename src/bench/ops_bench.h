// tandem bench ops: each projection alone, beside the read bandwidth of the same minute.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/device.h"
#include "bench/linear_shapes.h"

namespace tandem::bench {

struct OpsOptions {
  std::vector<int64_t> rows = {1, 5, 16};
  Timing timing = {};
  // Weights are taken from this much memory in turn, so that they come from memory and not from a
  // cache, as in a forward.
  int64_t arena_bytes = int64_t{1} << 30;
  std::string only = {};  // names that contain it; empty: all
};

// One entry per shape and row count: {"name", "in", "out", "format", "rows", "us", "us_best",
// "gb_per_s", "read_gb_per_s", "share_of_read", "gflop_per_s", "times_one_row"}. us is the median.
nlohmann::ordered_json run_ops_bench(Device& device, const std::vector<LinearShape>& shapes,
                                     const OpsOptions& options);

// "fp8", "bf16", "fp8 block", ...
const char* linear_format_name(ops::LinearFormat format);
// What every entry says of a product that takes so many seconds.
nlohmann::ordered_json op_line(const LinearShape& shape, int64_t rows, double seconds,
                               double bandwidth);

std::string ops_table(const nlohmann::ordered_json& results);

}  // namespace tandem::bench
