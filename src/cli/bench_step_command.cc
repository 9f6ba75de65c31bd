// tandem bench step: the parts of a round, each beside its roofline.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench/cpu_device.h"
#include "bench/gpu_bench.h"
#include "bench/gpu_step.h"
#include "bench/machine.h"
#include "bench/step_bench.h"
#include "cli/bench_flags.h"
#include "cli/command.h"
#include "cli/model_flags.h"

namespace tandem::cli {
namespace {

using nlohmann::ordered_json;

struct Flags {
  ModelFlags model;
  BenchOutput output;
  bench::StepOptions step;
  std::vector<std::string> loads;
  bool device_clock = false;
};

base::Status check_context(const bench::StepSetup& setup, const io::TextConfig& text) {
  if (setup.context >= text.max_position_embeddings - 128)
    return base::invalid("bench step: --context: expected less than {}, got {}",
                         text.max_position_embeddings - 128, setup.context);
  if (setup.prefill_tokens > text.max_position_embeddings)
    return base::invalid("bench step: --prefill-tokens: expected at most {}, got {}",
                         text.max_position_embeddings, setup.prefill_tokens);
  return {};
}

base::Status publish_step(const Flags& flags, const bench::ReportHead& head,
                          const model::Pair& pair, const engine::RuntimeOptions& options,
                          const ordered_json& result) {
  ordered_json report = bench::report_head(head);
  add_model_parts(report, pair, options);
  report["step"] = result;
  report["peak_rss_bytes"] = bench::peak_rss_bytes();
  std::string text = bench_title("step", options) +
                     fmt::format("{}, context {}\n", head.device, flags.step.setup.context) +
                     bench::step_table(result);
  if (result.contains("loads")) text += "\n" + bench::gpu_loads_table(result["loads"]);
  return publish(flags.output, report, text + memory_text());
}

base::Status run_on_cpu(const Flags& flags, engine::RuntimeOptions options,
                        const bench::StepOptions& step) {
  if (!flags.loads.empty())
    return base::unsupported("bench step: --loads: expected a GPU; use tandem bench latency");
  TANDEM_ASSIGN_OR_RETURN(const auto device, bench::open_device("cpu", options.num_threads));
  TANDEM_ASSIGN_OR_RETURN(const bench::ReportHead head,
                          report_head_of(flags.output, "step", device->description()));
  options.pair.model.max_rows = std::max<int64_t>(step.setup.max_rows, step.setup.prefill_tokens);
  TANDEM_ASSIGN_OR_RETURN(model::Pair pair, model::load_pair(options.pair));
  TANDEM_RETURN_IF_ERROR(check_context(step.setup, pair.target->config()));
  // The cache that would serve.
  const core::DType kv_dtype = model::kv_dtype(
      options.kv_cache_dtype, pair.target_checkpoint->quantization(), options.pair.model);
  TANDEM_ASSIGN_OR_RETURN(
      model::KvScaleLists scales,
      model::kv_scales(*pair.target_checkpoint, kv_dtype, options.kv_cache_dtype));
  const auto model = bench::make_cpu_step(*device, pair, step.setup, kv_dtype, std::move(scales));
  const bench::StepBytes bytes = bench::step_bytes(pair, step.setup.context, kv_dtype);
  const auto bandwidth = [&] { return device->read_bandwidth(); };
  return publish_step(flags, head, pair, options,
                      bench::run_step_bench(bandwidth, *model, bytes, step));
}

base::Status run_on_gpu(const Flags& flags, engine::RuntimeOptions options,
                        const bench::StepOptions& step) {
  if (step.setup.max_rows > speculation::kMaxDraftTokens + 1)
    return base::invalid("bench step: --max-rows: expected at most {} on a GPU, got {}",
                         speculation::kMaxDraftTokens + 1, step.setup.max_rows);
  std::vector<bench::StepLoad> loads;
  int64_t longest = std::max(step.setup.context, step.setup.prefill_tokens);
  options.max_num_seqs = 1;
  for (const std::string& text : flags.loads) {
    TANDEM_ASSIGN_OR_RETURN(const bench::StepLoad load, bench::parse_step_load(text));
    loads.push_back(load);
    longest = std::max(longest, load.context);
    options.max_num_seqs = std::max(options.max_num_seqs, load.batch);
  }
  options.max_model_len = longest + bench::kGpuStepRoom;
  options.max_num_batched_tokens = std::max(options.max_num_batched_tokens, options.max_num_seqs);
  options.prefix_caching = false;
  TANDEM_ASSIGN_OR_RETURN(const double bandwidth, bench::gpu_read_bandwidth());
  TANDEM_ASSIGN_OR_RETURN(const auto runtime, open_runtime(options));
  TANDEM_RETURN_IF_ERROR(check_context(step.setup, runtime->pair().target->config()));
  if (runtime->kv_plan().max_num_seqs < options.max_num_seqs)
    return base::make_error(
        base::ErrorCode::kResourceExhausted,
        fmt::format("bench step: --loads: expected room in the KV cache for {} "
                    "sequences of {} tokens, got {}; ask for fewer",
                    options.max_num_seqs, options.max_model_len, runtime->kv_plan().max_num_seqs));
  TANDEM_ASSIGN_OR_RETURN(const bench::ReportHead head,
                          report_head_of(flags.output, "step", runtime->gpu_name()));
  bench::GpuStep model(*runtime, step.setup);
  const bench::StepBytes bytes =
      bench::step_bytes(runtime->pair(), step.setup.context, runtime->kv_dtype());
  ordered_json result = bench::run_step_bench([&] { return bandwidth; }, model, bytes, step);
  if (!loads.empty())
    result["loads"] = bench::run_gpu_loads(model, runtime->pair(), loads,
                                           {.timing = step.timing,
                                            .engine_rounds = !flags.device_clock,
                                            .automatic = options.auto_drafts,
                                            .read_bandwidth = bandwidth});
  return publish_step(flags, head, runtime->pair(), options, result);
}

base::Status run(const Flags& flags) {
  if (flags.device_clock && flags.loads.empty())
    return base::invalid("bench step: --loads-on-device-clock: expected --loads with it, got none");
  TANDEM_ASSIGN_OR_RETURN(const engine::RuntimeOptions options, runtime_options(flags.model));
  TANDEM_RETURN_IF_ERROR(check_bench_output(flags.output));
  bench::StepOptions step = flags.step;
  step.setup.num_draft_tokens = options.num_draft_tokens;
  step.setup.draft_position_offset = options.draft_position_offset;
  step.setup.synthetic = options.synthetic;
  // "auto" may draft up to the most there is; made-up rates say up to where it can bring anything.
  if (options.auto_drafts && options.synthetic)
    step.setup.num_draft_tokens =
        std::min(options.num_draft_tokens, static_cast<int>(options.synthetic->rates.size()));
  step.setup.max_rows = std::max(step.setup.max_rows, options.num_draft_tokens + 1);
  return options.on_gpu ? run_on_gpu(flags, options, step) : run_on_cpu(flags, options, step);
}

void add_step_flags(CLI::App& command, Flags& flags) {
  bench::StepOptions& options = flags.step;
  command.add_option("--context", options.setup.context, "tokens in the KV cache")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  command.add_option("--max-rows", options.setup.max_rows, "verify is timed with 1 to this many")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  command
      .add_option("--prefill-tokens", options.setup.prefill_tokens, "prompt that is timed; 0: none")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 16))
      ->capture_default_str();
  command
      .add_option(
          "--loads", flags.loads,
          "on a GPU, rounds of several sequences as well: sequences x tokens, 8x2048,32x2048")
      ->delimiter(',');
  command.add_flag("--loads-on-device-clock", flags.device_clock,
                   "the device's time alone for --loads: no rounds of the engine");
  command.add_flag("--sampled", options.setup.sampled,
                   "rounds draw (temperature 1, top-k 64, top-p 0.95) instead of being greedy");
  command.add_option("--min-calls", options.timing.min_calls, "calls that are timed, at least")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      .add_option("--turns", options.turns,
                  "the parts take turns so often: for a machine that does other work as well")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command.add_option("--min-seconds", options.timing.min_seconds, "and for how long, at least")
      ->check(CLI::Range(0.0, 600.0))
      ->capture_default_str();
}

}  // namespace

void add_bench_step_command(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand("step", "Verify by rows, draft step, round, prefill");
  add_model_flags(*command, flags->model);
  add_bench_output(*command, flags->output);
  add_step_flags(*command, *flags);
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
