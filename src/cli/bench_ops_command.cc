// tandem bench ops: the projections of a model alone; reads configs, no weights.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/ops_bench.h"
#include "cli/bench_flags.h"
#include "cli/command.h"
#include "io/speculative_config.h"
#include "speculation/acceptance.h"

namespace tandem::cli {
namespace {

struct Flags {
  std::string target;
  std::string speculative_config;
  std::string hf_overrides;
  std::string device = "cpu";
  int threads = 0;
  bench::OpsOptions ops;
  BenchOutput output;
};

base::Result<std::vector<bench::LinearShape>> shapes_of(const std::string& dir,
                                                        const std::string& hf_overrides,
                                                        const std::string& prefix) {
  TANDEM_ASSIGN_OR_RETURN(const io::ModelConfig config, io::read_model_config(dir, hf_overrides));
  TANDEM_ASSIGN_OR_RETURN(const io::QuantizationConfig quantization,
                          io::read_quantization_config(dir, hf_overrides));
  return bench::linear_shapes(config, quantization, prefix);
}

base::Status run(const Flags& flags) {
  for (const int64_t rows : flags.ops.rows)
    if (rows < 1 || rows > 4096)
      return base::invalid("bench ops: --rows: expected 1 to 4096, got {}", rows);
  TANDEM_ASSIGN_OR_RETURN(std::vector<bench::LinearShape> shapes,
                          shapes_of(flags.target, flags.hf_overrides, ""));
  if (!flags.speculative_config.empty()) {
    TANDEM_ASSIGN_OR_RETURN(
        const io::SpeculativeConfig config,
        io::parse_speculative_config(flags.speculative_config, speculation::kMaxDraftTokens));
    TANDEM_ASSIGN_OR_RETURN(const auto more, shapes_of(config.model.string(), "", "draft "));
    shapes.insert(shapes.end(), more.begin(), more.end());
  }
  TANDEM_ASSIGN_OR_RETURN(const auto device, bench::open_device(flags.device, flags.threads));
  TANDEM_ASSIGN_OR_RETURN(const bench::ReportHead head,
                          report_head_of(flags.output, "ops", device->description()));
  nlohmann::ordered_json report = bench::report_head(head);
  report["model"] = {{"name", std::filesystem::path(flags.target).filename().string()}};
  report["ops"] = bench::run_ops_bench(*device, shapes, flags.ops);
  if (report["ops"].empty())
    return base::invalid("bench ops: --only: expected a part of a projection's name, got \"{}\"",
                         flags.ops.only.substr(0, 60));
  return publish(flags.output, report,
                 device->description() + "\n" + bench::ops_table(report["ops"]));
}

}  // namespace

void add_bench_ops_command(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand("ops", "Each projection of a model alone");
  command->add_option("target", flags->target, "folder of the target; its configs are enough")
      ->required();
  command->add_option("--speculative-config", flags->speculative_config,
                      R"({"model": DIR}: the assistant's projections as well)");
  command->add_option("--hf-overrides", flags->hf_overrides, "JSON merged into config.json");
  command->add_option("--device", flags->device, "cpu")->capture_default_str();
  command->add_option("--threads", flags->threads, "0: all cores")->check(CLI::Range(0, 1024));
  command->add_option("--rows", flags->ops.rows, "row counts: 1,5,16")->delimiter(',');
  command->add_option("--only", flags->ops.only, "projections whose name contains this");
  command->add_option("--min-calls", flags->ops.timing.min_calls, "calls that are timed, at least")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_option("--min-seconds", flags->ops.timing.min_seconds, "and for how long, at least")
      ->check(CLI::Range(0.0, 600.0))
      ->capture_default_str();
  add_bench_output(*command, flags->output);
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
