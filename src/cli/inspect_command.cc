// tandem inspect: what a model folder holds and what it will take to run it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/inspect_report.h"
#include "cli/terminal.h"

namespace tandem::cli {
namespace {

struct InspectFlags {
  std::string dir;
  InspectOptions options;
  bool json = false;
};

base::Status run(const InspectFlags& flags) {
  TANDEM_ASSIGN_OR_RETURN(const InspectReport report, inspect(flags.dir, flags.options));
  Output output(STDOUT_FILENO);
  output.write(flags.json ? report_json(report).dump(
                                2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                                "\n"
                          : report_text(report));
  return output.status();
}

}  // namespace

void add_inspect_command(CLI::App& program, int& exit_code) {
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* command =
      program.add_subcommand("inspect", "Say what a model folder is and what it will take");
  command->add_option("dir", flags->dir, "folder of a target or an assistant")->required();
  command->add_option("--with", flags->options.partner,
                      "folder that may pair with it (default: those beside it)");
  command->add_option("--length", flags->options.length, "tokens to size the KV cache for")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  command->add_flag("--check-values", flags->options.check_values,
                    "read all weights and refuse NaN and infinity");
  command->add_flag("--json", flags->json, "as one JSON object");
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
