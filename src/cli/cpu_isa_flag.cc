#include "cli/cpu_isa_flag.h"

#include <CLI/CLI.hpp>

#include "ops/cpu/isa.h"

namespace tandem::cli {
namespace {

void choose(const std::string& name) {
  constexpr size_t kMaxShown = 60;
  const auto isa = ops::cpu::parse_isa(name.substr(0, kMaxShown));
  if (!isa) throw CLI::ValidationError("--cpu-isa", isa.error().message);
  ops::cpu::set_isa(*isa);
}

}  // namespace

void add_cpu_isa_flag(CLI::App& program) {
  for (CLI::App* command : program.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_option_no_throw("--threads") != nullptr)
      command
          ->add_option_function<std::string>(
              "--cpu-isa", choose, "avx2, avx512, amx, reference; auto: the fastest this CPU has")
          ->default_str("auto");
    add_cpu_isa_flag(*command);
  }
}

}  // namespace tandem::cli
