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

std::string ops_table(const nlohmann::ordered_json& results);

}  // namespace tandem::bench
