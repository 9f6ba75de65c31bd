// tandem bench serve: load on a server, with the flags of `vllm bench serve`.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "bench/serve_result.h"
#include "cli/bench_flags.h"
#include "cli/command.h"
#include "cli/interrupt.h"

namespace tandem::cli {
namespace {

struct Flags {
  bench::ServeBenchOptions serve;
  std::string backend = "openai";
  std::string base_url;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string dataset = "random";
  std::string request_rate = "inf";
  std::vector<int64_t> token_range;
  std::vector<std::string> headers;
  std::vector<double> percentiles = {99};
  std::vector<std::string> goodput;
  bool save_detailed = false;
  BenchOutput output;
};

base::Result<double> parse_rate(const std::string& text) {
  if (text == "inf") return 0.0;
  double rate = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rate);
  if (error != std::errc() || end != text.data() + text.size() || !(rate > 0) ||
      !std::isfinite(rate))
    return base::invalid(
        "bench serve: --request-rate: expected a number above 0 or inf, got \"{}\"",
        text.substr(0, 60));
  return rate;
}

base::Result<bench::Endpoint> endpoint_of(const Flags& flags) {
  bench::Endpoint endpoint;
  endpoint.host = flags.host;
  endpoint.port = flags.port;
  if (!flags.base_url.empty()) {
    TANDEM_ASSIGN_OR_RETURN(endpoint, bench::parse_base_url(flags.base_url));
  }
  if (const char* key = std::getenv("OPENAI_API_KEY"); key != nullptr && key[0] != '\0')
    endpoint.headers.emplace_back("Authorization", std::string("Bearer ") + key);
  for (const std::string& header : flags.headers) {
    const size_t equals = header.find('=');
    if (equals == std::string::npos || equals == 0 || header.find_first_of(" \t:") < equals ||
        header.find_first_of("\r\n") != std::string::npos)
      return base::invalid("bench serve: --header: expected KEY=VALUE, got \"{}\"",
                           header.substr(0, 60));
    endpoint.headers.emplace_back(header.substr(0, equals), header.substr(equals + 1));
  }
  return endpoint;
}

base::Result<std::map<std::string, double>> parse_goodput(const std::vector<std::string>& limits) {
  std::map<std::string, double> result;
  for (const std::string& limit : limits) {
    const size_t colon = limit.find(':');
    const std::string name = limit.substr(0, colon);
    double milliseconds = 0;
    const char* const last = limit.data() + limit.size();
    const bool known = name == "ttft" || name == "tpot" || name == "e2el";
    if (!known || colon == std::string::npos ||
        std::from_chars(limit.data() + colon + 1, last, milliseconds).ptr != last ||
        !(milliseconds > 0))
      return base::invalid(
          "bench serve: --goodput: expected ttft:MS, tpot:MS or e2el:MS, got \"{}\"",
          limit.substr(0, 60));
    result[name] = milliseconds;
  }
  return result;
}

base::Status run(const Flags& flags) {
  const InterruptGuard guard;
  bench::ServeBenchOptions options = flags.serve;
  options.chat = flags.backend == "openai-chat";
  TANDEM_ASSIGN_OR_RETURN(options.request_rate, parse_rate(flags.request_rate));
  TANDEM_ASSIGN_OR_RETURN(options.endpoint, endpoint_of(flags));
  if ((flags.dataset == "custom") != !options.dataset_path.empty())
    return base::invalid(
        "bench serve: expected --dataset-name custom together with --dataset-path FILE, got one "
        "of them");
  if (flags.token_range.size() == 2) {
    options.min_token_id = flags.token_range[0];
    options.max_token_id = flags.token_range[1];
  }
  bench::ServeResultOptions shown{.percentiles = flags.percentiles,
                                  .detailed = flags.save_detailed};
  for (const double percent : shown.percentiles)
    if (!(percent >= 0 && percent <= 100))
      return base::invalid("bench serve: --metric-percentiles: expected 0 to 100, got {}", percent);
  TANDEM_ASSIGN_OR_RETURN(shown.goodput, parse_goodput(flags.goodput));
  const std::string server = fmt::format("http://{}:{}{}", options.endpoint.host,
                                         options.endpoint.port, options.endpoint.folder);
  TANDEM_ASSIGN_OR_RETURN(const bench::ReportHead head,
                          report_head_of(flags.output, "serve", "server " + server));
  TANDEM_RETURN_IF_ERROR(check_bench_output(flags.output));
  TANDEM_ASSIGN_OR_RETURN(const bench::ServeRun measured, bench::run_serve_bench(options, [] {
                            return InterruptGuard::interrupted();
                          }));
  nlohmann::ordered_json report = bench::report_head(head);
  report.update(bench::serve_result(options, measured, shown));
  BenchOutput output = flags.output;
  // Half a run would stand beside whole ones.
  if (measured.interrupted) output.history = "none";
  TANDEM_RETURN_IF_ERROR(publish(output, report, bench::serve_table(report)));
  if (measured.interrupted)
    return base::make_error(base::ErrorCode::kCancelled,
                            "bench serve: interrupted: the figures are of the requests that had "
                            "ended, and the history does not have them");
  if (report["completed"] == 0 && report["aborted"] == 0)
    return base::make_error(base::ErrorCode::kInternal,
                            "bench serve: expected answers, got none: " + report["errors"].dump());
  return {};
}

void add_server_flags(CLI::App& command, Flags& flags) {
  command.add_option("--backend", flags.backend, "openai: completions; openai-chat")
      ->transform(CLI::CheckedTransformer(std::map<std::string, std::string>{
          {"openai", "openai"}, {"vllm", "openai"}, {"openai-chat", "openai-chat"}}))
      ->capture_default_str();
  command.add_option("--base-url", flags.base_url,
                     "http://HOST:PORT, or with a folder behind it, instead of --host and --port");
  command.add_option("--host", flags.host)->capture_default_str();
  command.add_option("--port", flags.port)->check(CLI::Range(1, 65535))->capture_default_str();
  command.add_option("--endpoint", flags.serve.path, "path (default: the backend's)");
  command.add_option("--model", flags.serve.model, "default: the first one the server names");
  command.add_option("--header", flags.headers,
                     "KEY=VALUE of every request; OPENAI_API_KEY in the "
                     "environment is sent as well");
  command
      .add_option("--ready-check-timeout-sec", flags.serve.ready_seconds,
                  "how long to wait for /health")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  command
      .add_option("--request-timeout", flags.serve.timeout_seconds, "seconds a request may take")
      ->check(CLI::Range(0.1, 1e6))
      ->capture_default_str();
}

void add_load_flags(CLI::App& command, Flags& flags) {
  bench::ServeBenchOptions& serve = flags.serve;
  command.add_option("--num-prompts", serve.num_prompts, "requests, or lines read of a file")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->capture_default_str();
  command.add_option("--request-rate", flags.request_rate, "requests per second; inf: all at once")
      ->capture_default_str();
  command.add_option("--burstiness", serve.burstiness, "1: Poisson; less: in bursts; more: evenly")
      ->capture_default_str();
  command.add_option("--max-concurrency", serve.max_concurrency, "requests under way at most")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  command
      .add_option("--duration", serve.duration_seconds,
                  "seconds to send for, the prompts again and again")
      ->check(CLI::Range(0.0, 1e7));
  command.add_option("--abort-rate", serve.abort_rate, "share of clients that hang up midway");
  command.add_option("--num-warmups", serve.num_warmups, "requests before, not counted")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  command.add_option("--seed", serve.seed, "of prompts and arrivals")->capture_default_str();
}

void add_prompt_flags(CLI::App& command, Flags& flags) {
  bench::ServeBenchOptions& serve = flags.serve;
  command.add_option("--dataset-name", flags.dataset, "random, or custom: a file")
      ->check(CLI::IsMember({"random", "custom"}))
      ->capture_default_str();
  command.add_option("--dataset-path", serve.dataset_path,
                     R"(JSON lines: {"prompt": ...} or {"messages": [...]}, "output_tokens")");
  command.add_option("--random-input-len,--input-len", serve.lengths.input_len)
      ->capture_default_str();
  command
      .add_option("--random-output-len,--custom-output-len,--output-len", serve.lengths.output_len)
      ->capture_default_str();
  command
      .add_option("--random-range-ratio", serve.lengths.range_ratio,
                  "lengths differ by this share of themselves")
      ->capture_default_str();
  command.add_option("--random-prefix-len", serve.lengths.prefix_len, "tokens all prompts share");
  command
      .add_option("--token-range", flags.token_range,
                  "FIRST,LAST: random token ids are drawn from these (default 500,4000)")
      ->delimiter(',')
      ->expected(2);
  command.add_flag("--ignore-eos", serve.ignore_eos, "answers as long as asked for");
  command.add_option("--temperature", serve.temperature, "default: the server's");
  command.add_option("--extra-body", serve.extra_body, "JSON merged into every request");
}

void add_result_flags(CLI::App& command, Flags& flags) {
  command.add_option("--metric-percentiles", flags.percentiles, "of the times: 50,99,99.9")
      ->delimiter(',');
  command.add_option("--goodput", flags.goodput,
                     "ttft:MS tpot:MS e2el:MS: how many requests keep to these");
  command.add_flag("--save-detailed", flags.save_detailed, "every request in the report");
  command.add_flag("--return-token-ids", flags.serve.token_ids, "ask the server for token ids");
  add_bench_output(command, flags.output);
}

}  // namespace

void add_bench_serve_command(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = bench.add_subcommand("serve", "Load on a server over HTTP");
  add_server_flags(*command, *flags);
  add_load_flags(*command, *flags);
  add_prompt_flags(*command, *flags);
  add_result_flags(*command, *flags);
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
