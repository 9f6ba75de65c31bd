#include "bench/serve_bench.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "io/json.h"

namespace tandem::bench {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr useconds_t kReadyPause = 50'000;

base::Status wait_until_ready(ServeBenchOptions& options, const std::function<bool()>& stopped) {
  const base::Stopwatch watch;
  while (true) {
    const auto answer = ask_any_address(options.endpoint, "/health", 5);
    // OpenAI's API has no such path, so a server without it is ready when it says so.
    if (answer && (answer->status == 200 || answer->status == 404)) return {};
    if (stopped()) return base::make_error(base::ErrorCode::kCancelled, "bench: interrupted");
    if (watch.seconds() >= options.ready_seconds) {
      if (!answer) return tl::unexpected<base::Error>(answer.error());
      return base::make_error(
          base::ErrorCode::kNotFound,
          fmt::format("{}:{}/health: expected 200, got {}", options.endpoint.host,
                      options.endpoint.port, answer->status));
    }
    ::usleep(kReadyPause);
  }
}

base::Result<std::string> first_model(const Endpoint& endpoint) {
  TANDEM_ASSIGN_OR_RETURN(const HttpAnswer answer, ask(endpoint, "GET", "/v1/models"));
  const json parsed = json::parse(answer.body, nullptr, false);
  const json::json_pointer id("/data/0/id");
  if (answer.status == 200 && parsed.is_object() && parsed.contains(id) && parsed[id].is_string())
    return parsed[id].get<std::string>();
  return base::invalid("{}:{}/v1/models: expected a list of models, got {}; name one with --model",
                       endpoint.host, endpoint.port, answer.status);
}

// For chat, ids become the text they stand for.
base::Result<std::string> text_of(const Endpoint& endpoint, const std::string& model,
                                  const std::vector<int32_t>& ids) {
  const json body = {{"model", model}, {"tokens", ids}};
  TANDEM_ASSIGN_OR_RETURN(const HttpAnswer answer,
                          ask(endpoint, "POST", "/detokenize", body.dump()));
  const json parsed = json::parse(answer.body, nullptr, false);
  if (answer.status == 200 && parsed.is_object() && parsed.contains("prompt") &&
      parsed["prompt"].is_string())
    return parsed["prompt"].get<std::string>();
  return base::invalid(
      "/detokenize: expected the text of random tokens for chat, got {}; use --dataset-path",
      answer.status);
}

base::Result<std::vector<ServePrompt>> make_prompts(const ServeBenchOptions& options) {
  if (!options.dataset_path.empty())
    return read_serve_prompts(options.dataset_path, options.chat, options.num_prompts,
                              options.lengths.output_len);
  const auto random = random_prompts(options.num_prompts, options.lengths,
                                     options.max_token_id - options.min_token_id, {}, options.seed);
  std::vector<ServePrompt> prompts;
  for (const RandomPrompt& one : random) {
    std::vector<int32_t> ids = one.ids;
    for (int32_t& id : ids) id += static_cast<int32_t>(options.min_token_id);
    if (!options.chat) {
      prompts.push_back({"prompt", json(ids).dump(), one.output_len});
      continue;
    }
    TANDEM_ASSIGN_OR_RETURN(const std::string text, text_of(options.endpoint, options.model, ids));
    const json messages = json::array({{{"role", "user"}, {"content", text}}});
    prompts.push_back({"messages", messages.dump(-1, ' ', false, json::error_handler_t::replace),
                       one.output_len});
  }
  return prompts;
}

std::string body_of(const ServeBenchOptions& options, const ServePrompt& prompt,
                    const ordered_json& extra) {
  ordered_json parameters = {
      {"model", options.model},
      {options.chat ? "max_completion_tokens" : "max_tokens", prompt.output_len},
      {"stream", true},
      {"stream_options", {{"include_usage", true}}}};
  if (options.ignore_eos) parameters["ignore_eos"] = true;
  if (options.token_ids) parameters["return_token_ids"] = true;
  if (options.temperature) parameters["temperature"] = *options.temperature;
  parameters.update(extra);
  // The prompt is JSON already and may be long: it is put in as text.
  std::string body = parameters.dump();
  body.back() = ',';
  return body + "\"" + prompt.field + "\":" + prompt.json + "}";
}

// Hands out requests in order, again and again when the run has a duration.
class Plan {
 public:
  Plan(const ServeBenchOptions& options, const ServeRun& run, const ordered_json& extra)
      : options_(options), run_(run), extra_(extra), numbers_(options.seed + 1) {
    times_ = arrival_times(static_cast<int64_t>(run.prompts.size()), options.request_rate,
                           options.burstiness, options.seed);
    round_seconds_ = options.request_rate > 0
                         ? static_cast<double>(run.prompts.size()) / options.request_rate
                         : 0;
  }

  std::optional<PlannedRequest> next() {
    const size_t count = run_.prompts.size();
    const size_t round = index_ / count;
    const bool timed = options_.duration_seconds > 0;
    if (!timed && round > 0) return std::nullopt;
    PlannedRequest request;
    request.prompt = index_++ % count;
    request.at_seconds = times_[request.prompt] + static_cast<double>(round) * round_seconds_;
    const double latest = std::max(request.at_seconds, clock_.seconds());
    if (timed && latest >= options_.duration_seconds) return std::nullopt;
    request.path = options_.path;
    request.body = body_of(options_, run_.prompts[request.prompt], extra_);
    if (numbers_.uniform() < options_.abort_rate)
      request.abort_after =
          numbers_.between(1, std::max<int64_t>(1, run_.prompts[request.prompt].output_len / 4));
    return request;
  }

 private:
  const ServeBenchOptions& options_;
  const ServeRun& run_;
  const ordered_json& extra_;
  RandomNumbers numbers_;
  base::Stopwatch clock_;
  std::vector<double> times_;
  double round_seconds_ = 0;
  size_t index_ = 0;
};

ServerCounters read_counters(const Endpoint& endpoint) {
  const auto answer = ask(endpoint, "GET", "/metrics");
  if (!answer || answer->status != 200) return {};
  return parse_counters(answer->body);
}

base::Status warm_up(const ServeBenchOptions& options, const ServeRun& run,
                     const ordered_json& extra, const std::function<bool()>& stopped) {
  int64_t left = options.num_warmups;
  const auto next = [&]() -> std::optional<PlannedRequest> {
    if (left-- <= 0) return std::nullopt;
    return PlannedRequest{.path = options.path, .body = body_of(options, run.prompts[0], extra)};
  };
  const auto outcomes = run_load(
      options.endpoint,
      {.max_concurrency = options.max_concurrency, .timeout_seconds = options.timeout_seconds},
      next, stopped);
  for (const RequestOutcome& outcome : outcomes)
    if (!outcome.success)
      return base::make_error(base::ErrorCode::kInternal,
                              fmt::format("bench serve: warm-up: expected an answer, got {} {}",
                                          outcome.status, outcome.error));
  return {};
}

}  // namespace

base::Status check_serve_options(const ServeBenchOptions& options) {
  TANDEM_RETURN_IF_ERROR(check_lengths(options.lengths));
  if (options.min_token_id < 0 || options.min_token_id >= options.max_token_id ||
      options.max_token_id > INT32_MAX)
    return base::invalid("--token-range: expected FIRST,LAST with 0 <= FIRST < LAST, got {},{}",
                         options.min_token_id, options.max_token_id);
  if (!(options.request_rate >= 0) || !std::isfinite(options.request_rate))
    return base::invalid("--request-rate: expected a number above 0 or inf, got {}",
                         options.request_rate);
  if (!(options.burstiness > 0 && options.burstiness <= 1e6))
    return base::invalid("--burstiness: expected a number above 0, up to 1000000, got {}",
                         options.burstiness);
  if (!(options.abort_rate >= 0 && options.abort_rate <= 1))
    return base::invalid("--abort-rate: expected 0 to 1, got {}", options.abort_rate);
  if (options.duration_seconds > 0 && options.request_rate == 0 && options.max_concurrency == 0)
    return base::invalid(
        "--duration: expected --request-rate or --max-concurrency with it, got neither");
  return {};
}

std::vector<double> arrival_times(int64_t count, double rate, double burstiness, uint64_t seed) {
  std::vector<double> times(static_cast<size_t>(count), 0.0);
  if (rate <= 0 || count == 0) return times;
  RandomNumbers numbers(seed);
  double now = 0;
  for (double& time : times) {
    now += numbers.gamma(burstiness) / (rate * burstiness);
    time = now;
  }
  const double scale = now > 0 ? static_cast<double>(count) / rate / now : 1;
  for (double& time : times) time *= scale;
  return times;
}

base::Result<ServeRun> run_serve_bench(ServeBenchOptions& options,
                                       const std::function<bool()>& stopped) {
  TANDEM_RETURN_IF_ERROR(check_serve_options(options));
  ordered_json extra = ordered_json::object();
  if (!options.extra_body.empty()) {
    TANDEM_ASSIGN_OR_RETURN(const json parsed, io::parse_json(options.extra_body, "--extra-body"));
    if (!parsed.is_object())
      return base::invalid("--extra-body: expected a JSON object, got {}",
                           io::describe_json(parsed));
    extra = ordered_json::parse(options.extra_body);
  }
  TANDEM_RETURN_IF_ERROR(resolve(options.endpoint));
  TANDEM_RETURN_IF_ERROR(wait_until_ready(options, stopped));
  if (options.model.empty()) {
    TANDEM_ASSIGN_OR_RETURN(options.model, first_model(options.endpoint));
  }
  if (options.path.empty())
    options.path = options.chat ? "/v1/chat/completions" : "/v1/completions";
  ServeRun run;
  run.model = options.model;
  TANDEM_ASSIGN_OR_RETURN(run.prompts, make_prompts(options));
  TANDEM_RETURN_IF_ERROR(warm_up(options, run, extra, stopped));
  run.before = read_counters(options.endpoint);
  Plan plan(options, run, extra);
  const base::Stopwatch watch;
  run.outcomes = run_load(
      options.endpoint,
      {.max_concurrency = options.max_concurrency,
       .timeout_seconds = options.timeout_seconds,
       .send_seconds = options.duration_seconds},
      [&plan] { return plan.next(); }, stopped);
  run.seconds = watch.seconds();
  run.interrupted = stopped();
  run.after = read_counters(options.endpoint);
  return run;
}

}  // namespace tandem::bench
