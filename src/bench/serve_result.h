// The figures of a load run: JSON with vLLM's keys, and a table with its rows.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/serve_bench.h"

namespace tandem::bench {

struct ServeResultOptions {
  std::vector<double> percentiles = {99};
  // "ttft", "tpot", "e2el" and the most milliseconds of a request that counts as good.
  std::map<std::string, double> goodput = {};
  bool detailed = false;  // lists of every request
};

nlohmann::ordered_json serve_result(const ServeBenchOptions& options, const ServeRun& run,
                                    const ServeResultOptions& shown);

std::string serve_table(const nlohmann::ordered_json& result);

}  // namespace tandem::bench
