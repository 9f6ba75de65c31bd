// tandem bench ops: the projections of a model alone, and on a GPU every other kernel; reads
// configs, no weights.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/gpu_bench.h"
#include "bench/ops_bench.h"
#include "cli/bench_flags.h"
#include "cli/command.h"
#include "io/checkpoint.h"
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
  std::vector<int64_t> rows;  // empty: as the device has it
  bench::OpsOptions ops;
  BenchOutput output;
};

base::Result<bench::GpuModel> read_model(const std::string& dir, const std::string& hf_overrides,
                                         const std::string& prefix) {
  bench::GpuModel model;
  model.prefix = prefix;
  TANDEM_ASSIGN_OR_RETURN(model.config, io::read_model_config(dir, hf_overrides));
  TANDEM_ASSIGN_OR_RETURN(const io::QuantizationConfig quantization,
                          io::read_quantization_config(dir, hf_overrides));
  model.shapes = bench::linear_shapes(model.config, quantization, prefix);
  return model;
}

base::Result<std::vector<bench::GpuModel>> read_models(const Flags& flags) {
  std::vector<bench::GpuModel> models(1);
  TANDEM_ASSIGN_OR_RETURN(models[0], read_model(flags.target, flags.hf_overrides, ""));
  if (flags.speculative_config.empty()) return models;
  TANDEM_ASSIGN_OR_RETURN(
      const io::SpeculativeConfig config,
      io::parse_speculative_config(flags.speculative_config, speculation::kMaxDraftTokens));
  TANDEM_ASSIGN_OR_RETURN(bench::GpuModel assistant,
                          read_model(config.model.string(), "", "draft "));
  models.push_back(std::move(assistant));
  return models;
}

base::Status nothing_found(const Flags& flags) {
  return base::invalid("bench ops: --only: expected a part of a projection's name, got \"{}\"",
                       flags.ops.only.substr(0, 60));
}

base::Result<nlohmann::ordered_json> new_report(const Flags& flags, const std::string& device) {
  TANDEM_ASSIGN_OR_RETURN(const bench::ReportHead head,
                          report_head_of(flags.output, "ops", device));
  nlohmann::ordered_json report = bench::report_head(head);
  report["model"] = {{"name", io::folder_name(flags.target)}};
  return report;
}

base::Status run_on_gpu(const Flags& flags, const std::vector<bench::GpuModel>& models) {
  TANDEM_ASSIGN_OR_RETURN(const std::string device, bench::gpu_description());
  TANDEM_ASSIGN_OR_RETURN(nlohmann::ordered_json report, new_report(flags, device));
  bench::GpuOpsOptions options;
  if (!flags.rows.empty()) options.rows = flags.rows;
  options.only = flags.ops.only;
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::ordered_json result,
                          bench::run_gpu_ops_bench(models, options));
  if (result["ops"].empty() && result["chains"].empty() && result["kernels"].empty())
    return nothing_found(flags);
  report.update(result);
  return publish(flags.output, report, device + "\n" + bench::gpu_ops_table(result));
}

base::Status run(const Flags& flags) {
  for (const int64_t rows : flags.rows)
    if (rows < 1 || rows > 4096)
      return base::invalid("bench ops: --rows: expected 1 to 4096, got {}", rows);
  TANDEM_RETURN_IF_ERROR(check_bench_output(flags.output));
  TANDEM_ASSIGN_OR_RETURN(const std::vector<bench::GpuModel> models, read_models(flags));
  if (flags.device == "cuda") return run_on_gpu(flags, models);
  std::vector<bench::LinearShape> shapes;
  for (const bench::GpuModel& model : models)
    shapes.insert(shapes.end(), model.shapes.begin(), model.shapes.end());
  TANDEM_ASSIGN_OR_RETURN(const auto device, bench::open_device(flags.device, flags.threads));
  TANDEM_ASSIGN_OR_RETURN(nlohmann::ordered_json report, new_report(flags, device->description()));
  bench::OpsOptions options = flags.ops;
  if (!flags.rows.empty()) options.rows = flags.rows;
  report["ops"] = bench::run_ops_bench(*device, shapes, options);
  if (report["ops"].empty()) return nothing_found(flags);
  return publish(flags.output, report,
                 device->description() + "\n" + bench::ops_table(report["ops"]));
}

}  // namespace

void add_bench_ops_command(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand(
      "ops", "Each projection of a model alone; on a GPU every kernel, beside cuBLASLt");
  command->add_option("target", flags->target, "folder of the target; its configs are enough")
      ->required();
  command->add_option("--speculative-config", flags->speculative_config,
                      R"({"model": DIR}: the assistant's projections as well)");
  command->add_option("--hf-overrides", flags->hf_overrides, "JSON merged into config.json");
  command->add_option("--device", flags->device, "cpu or cuda")->capture_default_str();
  command->add_option("--threads", flags->threads, "0: all cores")->check(CLI::Range(0, 1024));
  command
      ->add_option("--rows", flags->rows,
                   "row counts; default 1,5,16 on a CPU and 1,5,8,16,32,64,128,192 on a GPU")
      ->delimiter(',');
  command->add_option("--only", flags->ops.only,
                      "projections and kernels whose name contains this");
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
