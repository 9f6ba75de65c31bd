// --cpu-isa: which instruction set the CPU kernels use.
#pragma once

namespace CLI {
class App;
}

namespace tandem::cli {

// For every command that takes --threads: who computes on the CPU chooses how. The choice holds
// for the process, from the moment the flag is read.
void add_cpu_isa_flag(CLI::App& program);

}  // namespace tandem::cli
