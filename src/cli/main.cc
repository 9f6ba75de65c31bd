// tandem: runs a Gemma 4 target with its Multi-Token-Prediction assistant.
#include <CLI/CLI.hpp>

#include "cli/command.h"

int main(int argc, char** argv) {
  CLI::App program("Tandem: Gemma 4 with its Multi-Token-Prediction assistant", "tandem");
  program.set_version_flag("--version", TANDEM_VERSION);
  program.require_subcommand(1);
  int exit_code = 0;
  tandem::cli::add_generate_command(program, exit_code);
  tandem::cli::add_quantize_command(program, exit_code);
  tandem::cli::add_trace_command(program, exit_code);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int status = program.exit(error);
    return status == 0 ? 0 : 2;
  }
  return exit_code;
}
