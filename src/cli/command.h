// One subcommand of `tandem`: how it is wired into the argument parser and run.
#pragma once

#include "base/status.h"

namespace CLI {
class App;
}

namespace tandem::cli {

// Adds its subcommand to the program; the chosen one's exit status is left in `exit_code`.
void add_bench_command(CLI::App& program, int& exit_code);
void add_eval_command(CLI::App& program, int& exit_code);
void add_generate_command(CLI::App& program, int& exit_code);
void add_chat_command(CLI::App& program, int& exit_code);
void add_inspect_command(CLI::App& program, int& exit_code);
void add_tokenize_command(CLI::App& program, int& exit_code);
void add_quantize_command(CLI::App& program, int& exit_code);
void add_serve_command(CLI::App& program, int& exit_code);
void add_trace_command(CLI::App& program, int& exit_code);

// Exit statuses: 0 done; 1 failed at run time; 2 the user's input is wrong; 130 interrupted.
int exit_status(const base::Error& error);

// Prints `tandem: error: MESSAGE` and returns the exit status.
int report(const base::Error& error);

}  // namespace tandem::cli
