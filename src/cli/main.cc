// tandem: runs a Gemma 4 target with its Multi-Token-Prediction assistant.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>

#include "base/log.h"
#include "cli/command.h"
#include "cli/cpu_isa_flag.h"
#include "cli/dotted_flags.h"
#include "cli/foreign_flags.h"
#include "cli/serve_flags.h"
#include "cli/usage_error.h"

int main(int argc, char** argv) {
  CLI::App program("Tandem: Gemma 4 with its Multi-Token-Prediction assistant", "tandem");
  program.set_version_flag("--version", TANDEM_VERSION);
  program.require_subcommand(1);
  int exit_code = 0;
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of write(), like a full disk
  tandem::base::warn_of_log_variables();
  tandem::cli::add_generate_command(program, exit_code);
  tandem::cli::add_chat_command(program, exit_code);
  tandem::cli::add_inspect_command(program, exit_code);
  tandem::cli::add_tokenize_command(program, exit_code);
  tandem::cli::add_quantize_command(program, exit_code);
  tandem::cli::add_eval_command(program, exit_code);
  tandem::cli::add_serve_command(program, exit_code);
  tandem::cli::add_bench_command(program, exit_code);
  tandem::cli::add_trace_command(program, exit_code);
  tandem::cli::add_cpu_isa_flag(program);
  tandem::cli::refuse_odd_values(program);
  std::vector<std::string> arguments = tandem::cli::split_arguments(argc, argv);
  tandem::cli::accept_short_names(arguments);
  tandem::cli::join_dotted_flags(arguments);
  tandem::cli::accept_underscores(arguments);
  try {
    // The parser takes its arguments from the back.
    program.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    return tandem::cli::report_usage(program, error, arguments);
  } catch (const std::exception& error) {
    if (tandem::cli::report_switch(program, arguments)) return 2;  // a mistake of the user
    // A device that fails, or memory that does: nothing a user wrote.
    return tandem::cli::report({tandem::base::ErrorCode::kInternal, error.what()});
  }
  return exit_code;
}
