#include "bench/engine_bench.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "bench/statistics.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

base::Status interrupted() {
  return base::make_error(base::ErrorCode::kCancelled, "bench: interrupted");
}

void cancel_all(engine::Engine& engine, size_t count) {
  for (size_t i = 0; i < count; ++i) engine.cancel(i);
}

double per_second(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

void add_engine_figures(ordered_json& json, const EngineRun& run, int num_draft_tokens) {
  json["steps"] = run.num_steps;
  json["mean_step_ms"] = mean(run.step_seconds) * 1e3;
  json["p99_step_ms"] = percentile(run.step_seconds, 99) * 1e3;
  json["preemptions"] = run.num_preemptions;
  if (num_draft_tokens > 0) json["speculation"] = acceptance_json(run.acceptance, num_draft_tokens);
}

std::string speculation_text(const ordered_json& result) {
  if (!result.contains("speculation")) return "";
  const ordered_json& spec = result["speculation"];
  return fmt::format("Mean acceptance length: {:.2f}{}\n",
                     spec["mean_acceptance_length"].get<double>(),
                     result.contains("acceptance") ? " (synthetic)" : "");
}

}  // namespace

base::Result<EngineRun> run_engine(engine::Engine& engine, const std::vector<RandomPrompt>& prompts,
                                   const std::function<bool()>& stopped) {
  const engine::EngineStats before = engine.stats();
  EngineRun run;
  run.first_token_seconds.assign(prompts.size(), 0);
  const base::Stopwatch clock;
  for (size_t i = 0; i < prompts.size(); ++i) {
    engine::EngineRequest request;
    request.id = i;
    request.prompt_ids = prompts[i].ids;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.max_tokens = prompts[i].output_len;
    run.num_input_tokens += static_cast<int64_t>(request.prompt_ids.size());
    if (const base::Status added = engine.add_request(std::move(request)); !added) {
      cancel_all(engine, i);
      return tl::unexpected<base::Error>(added.error());
    }
  }
  size_t num_begun = 0;
  while (engine.has_work()) {
    if (stopped()) {
      cancel_all(engine, prompts.size());
      return tl::unexpected<base::Error>(interrupted().error());
    }
    const base::Stopwatch step;
    const auto events = engine.step();
    run.step_seconds.push_back(step.seconds());
    const bool all_begun = num_begun == prompts.size();
    for (const engine::TokenEvent& event : events) {
      if (!all_begun) run.num_begun_tokens += static_cast<int64_t>(event.tokens.size());
      if (run.first_token_seconds[event.id] == 0 && !event.tokens.empty()) {
        run.first_token_seconds[event.id] = clock.seconds();
        ++num_begun;
      }
      if (event.finish && event.finish->reason == engine::FinishReason::kError)
        return base::make_error(base::ErrorCode::kInternal, "bench: " + event.finish->error);
    }
  }
  run.seconds = clock.seconds();
  const engine::EngineStats after = engine.stats();
  run.num_output_tokens = after.num_output_tokens - before.num_output_tokens;
  run.num_steps = after.num_steps - before.num_steps;
  run.num_preemptions = after.num_preemptions - before.num_preemptions;
  run.acceptance = after.acceptance.since(before.acceptance);
  return run;
}

void add_roofline(ordered_json& report, int64_t num_sequences, double mean_length,
                  int64_t round_bytes, double read_bandwidth) {
  const double rounds_per_second = read_bandwidth / static_cast<double>(round_bytes);
  const double most = static_cast<double>(num_sequences) * mean_length * rounds_per_second;
  report["read_gb_per_s"] = read_bandwidth * 1e-9;
  report["round_bytes"] = round_bytes;
  report["roofline_tokens_per_second"] = most;
  if (report.contains("decode_tokens_per_second"))
    report["share_of_roofline"] = report["decode_tokens_per_second"].get<double>() / most;
}

std::string roofline_text(const ordered_json& report) {
  if (!report.contains("share_of_roofline")) return "";
  return fmt::format(
      "Roofline: {:.2f} tokens/s, of which {:.0f} %: memory is read at {:.1f} GB/s, a round reads "
      "{:.2f} GB\n",
      report["roofline_tokens_per_second"].get<double>(),
      100 * report["share_of_roofline"].get<double>(), report["read_gb_per_s"].get<double>(),
      report["round_bytes"].get<double>() * 1e-9);
}

ordered_json acceptance_json(const speculation::AcceptanceStats& stats, int num_draft_tokens) {
  auto rates = ordered_json::array();
  for (int i = 0; i < num_draft_tokens; ++i) rates.push_back(stats.rate_at(i));
  return {{"num_drafts", stats.num_drafts},
          {"num_draft_tokens", stats.num_draft_tokens},
          {"num_accepted_tokens", stats.num_accepted_tokens},
          {"mean_acceptance_length", stats.mean_acceptance_length()},
          {"acceptance_per_position", std::move(rates)}};
}

base::Result<ordered_json> run_latency(engine::Engine& engine, const LatencyOptions& options,
                                       std::span<const int32_t> excluded,
                                       const std::function<bool()>& stopped) {
  const auto prompts = random_prompts(options.batch_size, options.lengths,
                                      engine.options().vocab_size, excluded, options.seed);
  std::vector<double> seconds, first;
  EngineRun run;
  for (int i = 0; i < options.num_iters_warmup + options.num_iters; ++i) {
    TANDEM_ASSIGN_OR_RETURN(run, run_engine(engine, prompts, stopped));
    if (i < options.num_iters_warmup) continue;
    seconds.push_back(run.seconds);
    first.push_back(std::ranges::max(run.first_token_seconds));
  }
  ordered_json percentiles = ordered_json::object();
  for (const int percent : {10, 25, 50, 75, 90, 99})
    percentiles[std::to_string(percent)] = percentile(seconds, percent);
  ordered_json json = {
      {"batch_size", options.batch_size},
      {"input_len", options.lengths.input_len},
      {"output_len", options.lengths.output_len},
      {"avg_latency", mean(seconds)},
      {"latencies", seconds},
      {"percentiles", std::move(percentiles)},
      {"median_ttft", median(first)},
      {"output_tokens_per_second", per_second(run.num_output_tokens, median(seconds))},
      // After every request has its first token.
      {"decode_tokens_per_second",
       per_second(run.num_output_tokens - run.num_begun_tokens, median(seconds) - median(first))}};
  add_engine_figures(json, run, engine.options().num_draft_tokens);
  return json;
}

std::string latency_text(const ordered_json& result) {
  std::string text = fmt::format("Avg latency: {:.4f} s\n", result["avg_latency"].get<double>());
  for (const auto& [percent, seconds] : result["percentiles"].items())
    text += fmt::format("{}% percentile latency: {:.4f} s\n", percent, seconds.get<double>());
  text += fmt::format(
      "Median time to first token: {:.1f} ms\nOutput: {:.2f} tokens/s, {:.2f} tokens/s after the "
      "first\n",
      result["median_ttft"].get<double>() * 1e3, result["output_tokens_per_second"].get<double>(),
      result["decode_tokens_per_second"].get<double>());
  return text + speculation_text(result);
}

base::Result<ordered_json> run_throughput(engine::Engine& engine, const ThroughputOptions& options,
                                          std::span<const int32_t> excluded,
                                          const std::function<bool()>& stopped) {
  const auto prompts = random_prompts(options.num_prompts, options.lengths,
                                      engine.options().vocab_size, excluded, options.seed);
  EngineRun run;
  for (int i = 0; i <= options.num_iters_warmup; ++i) {
    TANDEM_ASSIGN_OR_RETURN(run, run_engine(engine, prompts, stopped));
  }
  const int64_t total = run.num_input_tokens + run.num_output_tokens;
  ordered_json json = {
      {"elapsed_time", run.seconds},
      {"num_requests", options.num_prompts},
      {"total_num_tokens", total},
      {"total_input_tokens", run.num_input_tokens},
      {"total_output_tokens", run.num_output_tokens},
      {"requests_per_second", per_second(options.num_prompts, run.seconds)},
      {"tokens_per_second", per_second(total, run.seconds)},
      {"output_tokens_per_second", per_second(run.num_output_tokens, run.seconds)}};
  add_engine_figures(json, run, engine.options().num_draft_tokens);
  return json;
}

std::string throughput_text(const ordered_json& result) {
  return fmt::format(
             "Throughput: {:.2f} requests/s, {:.2f} total tokens/s, {:.2f} output tokens/s\n"
             "Total num prompt tokens:  {}\nTotal num output tokens:  {}\n",
             result["requests_per_second"].get<double>(), result["tokens_per_second"].get<double>(),
             result["output_tokens_per_second"].get<double>(),
             result["total_input_tokens"].get<int64_t>(),
             result["total_output_tokens"].get<int64_t>()) +
         speculation_text(result);
}

}  // namespace tandem::bench
