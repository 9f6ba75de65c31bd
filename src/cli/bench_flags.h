// What the benchmarks share: what their reports say, and where they go.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/report.h"
#include "engine/runtime.h"

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

// "model", "assistant", "num_speculative_tokens" and what is made up.
void add_model_parts(nlohmann::ordered_json& report, const model::Pair& pair,
                     const engine::RuntimeOptions& options);
// "latency of DIR (dummy weights)", a line.
std::string bench_title(const std::string& what, const engine::RuntimeOptions& options);

// The most memory the process has had, a line.
std::string memory_text();

// Refuses, before the work, a file or history that publish() could not write; makes its folder.
base::Status check_bench_output(const BenchOutput& output);

// Prints `text` (or the report), writes the file and the history.
base::Status publish(const BenchOutput& output, const nlohmann::ordered_json& report,
                     const std::string& text);

// Where the flag says the history is.
base::Result<std::string> history_path(const std::string& flag);

void add_bench_model_commands(CLI::App& bench, int& exit_code);
void add_bench_step_command(CLI::App& bench, int& exit_code);
void add_bench_ops_command(CLI::App& bench, int& exit_code);
void add_bench_serve_command(CLI::App& bench, int& exit_code);
void add_bench_history_command(CLI::App& bench, int& exit_code);

}  // namespace tandem::cli
