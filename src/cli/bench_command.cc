// tandem bench: measures kernels, steps, the engine and servers, and keeps what came out.
#include <CLI/CLI.hpp>

#include "cli/bench_flags.h"
#include "cli/command.h"

namespace tandem::cli {

void add_bench_command(CLI::App& program, int& exit_code) {
  CLI::App* bench = program.add_subcommand("bench", "Measure kernels, steps, the engine, a server");
  bench->require_subcommand(1);
  add_bench_serve_command(*bench, exit_code);
  add_bench_model_commands(*bench, exit_code);
  add_bench_step_command(*bench, exit_code);
  add_bench_ops_command(*bench, exit_code);
  add_bench_history_command(*bench, exit_code);
}

}  // namespace tandem::cli
