#include "cli/bench_flags.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "bench/history.h"
#include "bench/machine.h"
#include "cli/terminal.h"
#include "io/atomic_file.h"

namespace tandem::cli {

using nlohmann::ordered_json;

namespace {

// What the report itself says: by some of these the history knows a run.
constexpr std::array<std::string_view, 9> kOwnKeys = {"benchmark", "date",      "version",
                                                      "device",    "machine",   "label",
                                                      "model",     "assistant", "acceptance"};

base::Status keep(const BenchOutput& output, const ordered_json& report, const std::string& json) {
  if (!output.output_json.empty() && output.output_json != "-")
    TANDEM_RETURN_IF_ERROR(io::write_file_atomically(output.output_json, json));
  if (output.history == "none") return {};
  TANDEM_ASSIGN_OR_RETURN(const std::string path, history_path(output.history));
  TANDEM_ASSIGN_OR_RETURN(bench::History history, bench::History::open(path));
  TANDEM_ASSIGN_OR_RETURN(const int64_t id, history.add(report));
  base::log_info("kept as run {} of {}", id, path);
  return {};
}

}  // namespace

void add_bench_output(CLI::App& command, BenchOutput& output) {
  command.add_option("--output-json", output.output_json, "file for the report; -: print it");
  command.add_option("--history", output.history,
                     "SQLite file that keeps the results (default: in the user's data folder); "
                     "none: keep nothing");
  command.add_option("--label", output.label, "a name for this run");
  command.add_option("--metadata", output.metadata, "KEY=VALUE for the report; may be repeated");
}

base::Result<bench::ReportHead> report_head_of(const BenchOutput& output,
                                               const std::string& benchmark,
                                               const std::string& device) {
  bench::ReportHead head{.benchmark = benchmark, .version = TANDEM_VERSION, .device = device};
  head.label = output.label;
  for (const std::string& pair : output.metadata) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      return base::invalid("bench: --metadata: expected KEY=VALUE, got \"{}\"", pair.substr(0, 60));
    const std::string key = pair.substr(0, equals);
    if (std::ranges::find(kOwnKeys, key) != kOwnKeys.end())
      return base::invalid("bench: --metadata: expected a key that the report does not use, got {}",
                           key);
    head.metadata[key] = pair.substr(equals + 1);
  }
  return head;
}

base::Result<std::string> history_path(const std::string& flag) {
  if (!flag.empty()) return flag;
  const std::filesystem::path path = bench::default_history_path();
  if (path.empty())
    return base::invalid("bench: --history: expected a file, got none, and HOME is not set");
  return path.string();
}

void add_model_parts(ordered_json& report, const model::Pair& pair,
                     const engine::RuntimeOptions& options) {
  const bool dummy = options.pair.load.dummy;
  report["model"] = bench::model_json(*pair.target_checkpoint, dummy);
  if (pair.assistant_checkpoint != nullptr)
    report["assistant"] = bench::model_json(*pair.assistant_checkpoint, dummy);
  report["num_speculative_tokens"] = options.num_draft_tokens;
  if (options.synthetic) report["acceptance"] = "synthetic";
}

std::string bench_title(const std::string& what, const engine::RuntimeOptions& options) {
  const std::string remark = bench::remark(options.synthetic.has_value(), options.pair.load.dummy);
  return fmt::format("{} of {}{}\n", what, options.pair.target.string(),
                     remark.empty() ? "" : " (" + remark + ")");
}

std::string memory_text() {
  return fmt::format("Memory: {:.2f} GiB resident at most\n",
                     static_cast<double>(bench::peak_rss_bytes()) / (int64_t{1} << 30));
}

base::Status check_bench_output(const BenchOutput& output) {
  if (!output.output_json.empty() && output.output_json != "-") {
    const std::filesystem::path path = output.output_json;
    std::error_code error;
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
    TANDEM_RETURN_IF_ERROR(io::check_writable(path));
  }
  if (output.history == "none") return {};
  TANDEM_ASSIGN_OR_RETURN(const std::string path, history_path(output.history));
  TANDEM_RETURN_IF_ERROR(bench::History::open(path));
  return {};
}

base::Status publish(const BenchOutput& output, const ordered_json& report,
                     const std::string& text) {
  const std::string json =
      report.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  // First what stays: nobody may read the table to its end (`| head`), which ends the program.
  const base::Status kept = keep(output, report, json);
  Output out(STDOUT_FILENO);
  out.write(output.output_json == "-" ? json : text);
  return kept ? out.status() : kept;
}

}  // namespace tandem::cli
