// tandem bench history: what earlier runs measured.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "bench/history.h"
#include "cli/bench_flags.h"
#include "cli/command.h"
#include "cli/terminal.h"

namespace tandem::cli {
namespace {

struct Flags {
  std::string history;
  bench::HistoryFilter filter;
  std::vector<int64_t> compare;
  std::optional<int64_t> show;
};

// Dates are compared as texts, so another spelling would list all runs or none.
base::Status check_since(const std::string& since) {
  constexpr std::string_view kForm = "0000-00-00";
  bool fits = since.size() <= kForm.size() || since[kForm.size()] == 'T';
  for (size_t i = 0; i < std::min(since.size(), kForm.size()); ++i)
    fits = fits && (kForm[i] == '-' ? since[i] == '-' : since[i] >= '0' && since[i] <= '9');
  if (fits) return {};
  return base::invalid("bench history: --since: expected a date such as 2026-11-28, got {}", since);
}

base::Status run(const Flags& flags) {
  TANDEM_RETURN_IF_ERROR(check_since(flags.filter.since));
  TANDEM_ASSIGN_OR_RETURN(const std::string path, history_path(flags.history));
  if (!std::filesystem::exists(path))
    return base::make_error(
        base::ErrorCode::kNotFound,
        fmt::format("bench history: expected a history, got no file {}; runs make it", path));
  TANDEM_ASSIGN_OR_RETURN(bench::History history, bench::History::open(path));
  std::string text;
  if (flags.show) {
    TANDEM_ASSIGN_OR_RETURN(const bench::HistoryEntry entry, history.get(*flags.show));
    text = entry.result + "\n";
  } else if (!flags.compare.empty()) {
    TANDEM_ASSIGN_OR_RETURN(const bench::HistoryEntry before, history.get(flags.compare[0]));
    TANDEM_ASSIGN_OR_RETURN(const bench::HistoryEntry after, history.get(flags.compare[1]));
    if (before.benchmark != after.benchmark)
      return base::invalid(
          "bench history: --compare: expected two runs of one benchmark, got {} and {}",
          before.benchmark, after.benchmark);
    text = bench::compare_reports(before, after);
  } else {
    TANDEM_ASSIGN_OR_RETURN(const auto entries, history.list(flags.filter));
    text = bench::history_table(entries);
  }
  Output output(STDOUT_FILENO);
  // Labels are anybody's, and a model's name is what its server says.
  output.write(flags.show ? text : printable(text));
  return output.status();
}

}  // namespace

void add_bench_history_command(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand("history", "Earlier results: list, show, compare");
  command->add_option("--history", flags->history, "SQLite file (default: the user's)");
  command->add_option("--benchmark", flags->filter.benchmark, "serve, latency, throughput, ...");
  command->add_option("--model", flags->filter.model, "runs whose model's name contains this");
  command->add_option("--label", flags->filter.label, "runs whose label contains this");
  command->add_option("--since", flags->filter.since, "runs from this date on: 2026-11-28");
  command->add_option("--limit", flags->filter.limit, "the newest so many")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  auto* compare =
      command->add_option("--compare", flags->compare, "two runs, side by side")->expected(2);
  command->add_option("--show", flags->show, "the whole report of a run")->excludes(compare);
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
