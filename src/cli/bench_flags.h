// What the benchmarks share: where their results go.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/report.h"

namespace CLI {
class App;
}

namespace tandem::cli {

struct BenchOutput {
  std::string output_json;  // file; empty: none; "-": standard output, instead of the table
  std::string history;      // SQLite file; empty: the default place; "none": no history
  std::string label;
  std::vector<std::string> metadata;  // KEY=VALUE
};

// --output-json, --history, --label, --metadata.
void add_bench_output(CLI::App& command, BenchOutput& output);

base::Result<bench::ReportHead> report_head_of(const BenchOutput& output,
                                               const std::string& benchmark,
                                               const std::string& device);

// Prints `text` (or the report), writes the file and the history.
base::Status publish(const BenchOutput& output, const nlohmann::ordered_json& report,
                     const std::string& text);

// Where the flag says the history is.
base::Result<std::string> history_path(const std::string& flag);

void add_bench_model_commands(CLI::App& bench, int& exit_code);
void add_bench_ops_command(CLI::App& bench, int& exit_code);
void add_bench_serve_command(CLI::App& bench, int& exit_code);
void add_bench_history_command(CLI::App& bench, int& exit_code);

}  // namespace tandem::cli
