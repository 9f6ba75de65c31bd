// tandem bench latency and throughput: a pair in this process.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "bench/cpu_device.h"
#include "bench/engine_bench.h"
#include "bench/gpu_bench.h"
#include "bench/machine.h"
#include "bench/step_bench.h"
#include "cli/bench_flags.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"

namespace tandem::cli {
namespace {

using nlohmann::ordered_json;

struct Flags {
  ModelFlags model;
  BenchOutput output;
  bench::LatencyOptions latency;
  bench::ThroughputOptions throughput;
};

const auto kStopped = [] { return InterruptGuard::interrupted(); };

struct DeviceFacts {
  std::string description;
  double read_bandwidth = 0;
};

// Measured before the engine runs; the memory it takes is given back.
base::Result<DeviceFacts> device_facts(const engine::RuntimeOptions& options) {
  DeviceFacts facts;
  if (options.on_gpu) {
    TANDEM_ASSIGN_OR_RETURN(facts.description, bench::gpu_description());
    TANDEM_ASSIGN_OR_RETURN(facts.read_bandwidth, bench::gpu_read_bandwidth());
    return facts;
  }
  bench::CpuDevice cpu(options.num_threads);
  return DeviceFacts{cpu.description(), cpu.read_bandwidth()};
}

// The roofline of decoding that batch, in the middle of its answers.
void add_batch_roofline(ordered_json& report, const Flags& flags, const engine::Runtime& runtime,
                        const engine::RuntimeOptions& options, double read_bandwidth) {
  // Each round has its own number of drafts: no roofline to name.
  if (options.auto_drafts || !options.drafts_from.empty()) return;
  const bench::RandomLengths& lengths = flags.latency.lengths;
  const bench::StepBytes bytes = bench::step_bytes(
      runtime.pair(), lengths.prefix_len + lengths.input_len + lengths.output_len / 2,
      runtime.kv_dtype());
  const int drafts = options.num_draft_tokens;
  const int64_t at_once = std::min(flags.latency.batch_size, runtime.kv_plan().max_num_seqs);
  const double length =
      drafts == 0 ? 1.0 : report["speculation"]["mean_acceptance_length"].get<double>();
  bench::add_roofline(report, at_once, length, bytes.round(at_once, drafts), read_bandwidth);
}

// The engine over random prompts; `measure` gives the figures, `show` the text.
template <typename Measure, typename Show>
base::Status run_engine_command(const Flags& flags, const std::string& name,
                                const bench::RandomLengths& lengths, int64_t num_requests,
                                const Measure& measure, const Show& show) {
  const InterruptGuard guard;
  TANDEM_RETURN_IF_ERROR(bench::check_lengths(lengths));
  TANDEM_ASSIGN_OR_RETURN(engine::RuntimeOptions options, runtime_options(flags.model));
  if (options.max_model_len == 0) {
    const auto longest = static_cast<double>(lengths.input_len + lengths.output_len);
    options.max_model_len =
        lengths.prefix_len + static_cast<int64_t>(longest * (1 + lengths.range_ratio)) + 2;
  }
  options.max_num_seqs = std::min(options.max_num_seqs, num_requests);
  // It would remember the prompts of the first batch.
  options.prefix_caching = false;
  TANDEM_RETURN_IF_ERROR(check_bench_output(flags.output));
  TANDEM_ASSIGN_OR_RETURN(const DeviceFacts device, device_facts(options));
  TANDEM_ASSIGN_OR_RETURN(const auto runtime, open_runtime(options));
  TANDEM_ASSIGN_OR_RETURN(const bench::ReportHead head,
                          report_head_of(flags.output, name, device.description));
  const auto& ids = runtime->pair().target_checkpoint->config().modality_token_ids;
  TANDEM_ASSIGN_OR_RETURN(const ordered_json figures, measure(runtime->engine(), ids));
  ordered_json report = bench::report_head(head);
  add_model_parts(report, runtime->pair(), options);
  report["read_gb_per_s"] = device.read_bandwidth * 1e-9;
  report["max_num_seqs"] = runtime->kv_plan().max_num_seqs;
  report["max_num_batched_tokens"] = options.max_num_batched_tokens;
  report.update(figures);
  report["peak_rss_bytes"] = bench::peak_rss_bytes();
  if (name == "latency")
    add_batch_roofline(report, flags, *runtime, options, device.read_bandwidth);
  return publish(
      flags.output, report,
      bench_title(name, options) + show(report) + bench::roofline_text(report) + memory_text());
}

base::Status run_latency(const Flags& flags) {
  return run_engine_command(
      flags, "latency", flags.latency.lengths, flags.latency.batch_size,
      [&](engine::Engine& engine, std::span<const int32_t> ids) {
        return bench::run_latency(engine, flags.latency, ids, kStopped);
      },
      bench::latency_text);
}

base::Status run_throughput(const Flags& flags) {
  return run_engine_command(
      flags, "throughput", flags.throughput.lengths, flags.throughput.num_prompts,
      [&](engine::Engine& engine, std::span<const int32_t> ids) {
        return bench::run_throughput(engine, flags.throughput, ids, kStopped);
      },
      bench::throughput_text);
}

void add_lengths(CLI::App& command, bench::RandomLengths& lengths) {
  command.add_option("--input-len", lengths.input_len, "tokens of a prompt")->capture_default_str();
  command.add_option("--output-len", lengths.output_len, "tokens of an answer")
      ->capture_default_str();
  command
      .add_option("--random-range-ratio", lengths.range_ratio,
                  "lengths differ by this share of themselves, up and down")
      ->capture_default_str();
}

CLI::App* add_command(CLI::App& bench, const std::string& name, const std::string& help,
                      Flags& flags) {
  CLI::App* command = bench.add_subcommand(name, help);
  add_model_flags(*command, flags.model);
  add_bench_output(*command, flags.output);
  return command;
}

using Run = base::Status (*)(const Flags&);

void set_callback(CLI::App* command, const std::shared_ptr<Flags>& flags, Run run, int& exit_code) {
  command->callback([flags, run, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace

void add_bench_model_commands(CLI::App& bench, int& exit_code) {
  auto latency = std::make_shared<Flags>();
  latency->latency.lengths = {.input_len = 32, .output_len = 128};
  CLI::App* command =
      add_command(bench, "latency", "One batch of requests, again and again", *latency);
  add_lengths(*command, latency->latency.lengths);
  command->add_option("--batch-size", latency->latency.batch_size, "requests at once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16))
      ->capture_default_str();
  command->add_option("--num-iters-warmup", latency->latency.num_iters_warmup, "not counted")
      ->check(CLI::Range(0, 10000))
      ->capture_default_str();
  command->add_option("--num-iters", latency->latency.num_iters, "batches that are timed")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_option("--seed", latency->latency.seed, "of the prompts");
  set_callback(command, latency, run_latency, exit_code);

  auto throughput = std::make_shared<Flags>();
  throughput->throughput.lengths = {.input_len = 256, .output_len = 128};
  command = add_command(bench, "throughput", "Many requests, as fast as they go", *throughput);
  add_lengths(*command, throughput->throughput.lengths);
  command->add_option("--num-prompts", throughput->throughput.num_prompts, "requests")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command
      ->add_option("--num-iters-warmup", throughput->throughput.num_iters_warmup,
                   "times that all of them run before, not counted")
      ->check(CLI::Range(0, 10000))
      ->capture_default_str();
  command->add_option("--seed", throughput->throughput.seed, "of the prompts");
  set_callback(command, throughput, run_throughput, exit_code);
}

}  // namespace tandem::cli
