#include "bench/serve_result.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "bench/statistics.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

// Milliseconds of all requests that succeeded.
struct Times {
  std::vector<double> ttft, tpot, itl, e2el;
};

double tpot_of(const RequestOutcome& outcome) {
  return (outcome.latency - outcome.ttft) / static_cast<double>(outcome.num_output_tokens - 1);
}

Times times_of(const std::vector<RequestOutcome>& outcomes) {
  Times times;
  for (const RequestOutcome& outcome : outcomes) {
    if (!outcome.success) continue;
    times.ttft.push_back(outcome.ttft * 1e3);
    times.e2el.push_back(outcome.latency * 1e3);
    if (outcome.num_output_tokens > 1) times.tpot.push_back(tpot_of(outcome) * 1e3);
    for (size_t i = 1; i < outcome.part_times.size(); ++i)
      times.itl.push_back((outcome.part_times[i] - outcome.part_times[i - 1]) * 1e3);
  }
  return times;
}

void add_metric(ordered_json& json, const std::string& name, const std::vector<double>& values,
                const std::vector<double>& percentiles) {
  const std::vector<double> ordered = sorted(values);
  json["mean_" + name + "_ms"] = mean(ordered);
  json["median_" + name + "_ms"] = percentile_of_sorted(ordered, 50);
  json["std_" + name + "_ms"] = standard_deviation(ordered);
  for (const double percent : percentiles)
    json[fmt::format("p{}_{}_ms", percent, name)] = percentile_of_sorted(ordered, percent);
}

bool is_good(const RequestOutcome& outcome, const std::map<std::string, double>& limits) {
  if (!outcome.success) return false;
  const std::map<std::string, double> own = {
      {"ttft", outcome.ttft * 1e3},
      {"tpot", outcome.num_output_tokens > 1 ? tpot_of(outcome) * 1e3 : 0},
      {"e2el", outcome.latency * 1e3}};
  return std::ranges::all_of(
      limits, [&](const auto& limit) { return own.at(limit.first) <= limit.second; });
}

// The most tokens in one second of the run, and the most requests under way at once.
void add_peaks(ordered_json& json, const ServeRun& run) {
  std::vector<double> per_second(static_cast<size_t>(run.seconds) + 1, 0);
  std::vector<std::pair<double, int>> changes;
  for (const RequestOutcome& outcome : run.outcomes) {
    const double share = outcome.part_times.empty()
                             ? 0
                             : static_cast<double>(outcome.num_output_tokens) /
                                   static_cast<double>(outcome.part_times.size());
    for (const double time : outcome.part_times)
      per_second[std::min(static_cast<size_t>(time), per_second.size() - 1)] += share;
    changes.emplace_back(outcome.start, 1);
    changes.emplace_back(outcome.start + outcome.latency, -1);
  }
  std::ranges::sort(changes);
  int now = 0, most = 0;
  for (const auto& [time, change] : changes) most = std::max(most, now += change);
  json["max_output_tokens_per_s"] = std::ranges::max(per_second);
  json["max_concurrent_requests"] = most;
}

void add_counts(ordered_json& json, const ServeRun& run) {
  int64_t completed = 0, failed = 0, aborted = 0, inputs = 0, outputs = 0;
  std::map<std::string, int64_t> statuses;
  std::vector<double> refusals;
  for (const RequestOutcome& outcome : run.outcomes) {
    ++statuses[std::to_string(outcome.status)];
    if (outcome.status == 429) refusals.push_back(outcome.latency * 1e3);
    ++(outcome.success ? completed : outcome.aborted ? aborted : failed);
    if (!outcome.success) continue;
    inputs += outcome.num_prompt_tokens;
    outputs += outcome.num_output_tokens;
  }
  json["duration"] = run.seconds;
  json["completed"] = completed;
  json["failed"] = failed;
  json["aborted"] = aborted;
  json["statuses"] = statuses;
  if (!refusals.empty()) {
    json["refused"] = refusals.size();
    json["median_refusal_ms"] = median(refusals);
    json["p99_refusal_ms"] = percentile(refusals, 99);
  }
  json["total_input_tokens"] = inputs;
  json["total_output_tokens"] = outputs;
  json["request_throughput"] = static_cast<double>(completed) / run.seconds;
  json["output_throughput"] = static_cast<double>(outputs) / run.seconds;
  json["total_token_throughput"] = static_cast<double>(inputs + outputs) / run.seconds;
}

void add_speculation(ordered_json& json, const ServeRun& run) {
  if (!run.before.present || !run.after.present) return;
  if (run.after.synthetic) json["acceptance"] = "synthetic";
  if (run.after.dummy) json["weights"] = "dummy";
  const double drafts = run.after.num_drafts - run.before.num_drafts;
  if (drafts <= 0) return;
  const double drafted = run.after.num_draft_tokens - run.before.num_draft_tokens;
  const double accepted = run.after.num_accepted_tokens - run.before.num_accepted_tokens;
  auto rates = ordered_json::array();
  for (size_t i = 0; i < run.after.accepted_per_position.size(); ++i) {
    const auto& before = run.before.accepted_per_position;
    rates.push_back((run.after.accepted_per_position[i] - (i < before.size() ? before[i] : 0)) /
                    drafts);
  }
  json["spec_decode_acceptance_rate"] = drafted > 0 ? 100 * accepted / drafted : 0;
  json["spec_decode_acceptance_length"] = 1 + accepted / drafts;
  json["spec_decode_num_drafts"] = static_cast<int64_t>(drafts);
  json["spec_decode_draft_tokens"] = static_cast<int64_t>(drafted);
  json["spec_decode_accepted_tokens"] = static_cast<int64_t>(accepted);
  json["spec_decode_per_position_acceptance_rates"] = std::move(rates);
}

// Errors as they were, most frequent kinds once each.
ordered_json errors_of(const ServeRun& run) {
  std::map<std::string, int64_t> counts;
  for (const RequestOutcome& outcome : run.outcomes)
    if (!outcome.success && !outcome.aborted)
      ++counts[fmt::format("{} {}", outcome.status, outcome.error.substr(0, 200))];
  ordered_json errors = ordered_json::object();
  for (const auto& [error, count] : counts)
    if (errors.size() < 20) errors[error] = count;
  return errors;
}

ordered_json request_details(const std::vector<RequestOutcome>& outcomes) {
  auto list = ordered_json::array();
  for (const RequestOutcome& outcome : outcomes)
    list.push_back({{"prompt", outcome.prompt},
                    {"status", outcome.status},
                    {"success", outcome.success},
                    {"aborted", outcome.aborted},
                    {"error", outcome.error},
                    {"start", outcome.start},
                    {"ttft", outcome.ttft},
                    {"latency", outcome.latency},
                    {"input_len", outcome.num_prompt_tokens},
                    {"output_len", outcome.num_output_tokens},
                    {"text", outcome.text},
                    {"token_ids", outcome.token_ids}});
  return list;
}

}  // namespace

ordered_json serve_result(const ServeBenchOptions& options, const ServeRun& run,
                          const ServeResultOptions& shown) {
  ordered_json json = {{"backend", options.chat ? "openai-chat" : "openai"},
                       {"model_id", run.model},
                       {"num_prompts", run.prompts.size()},
                       {"burstiness", options.burstiness}};
  json["request_rate"] =
      options.request_rate > 0 ? ordered_json(options.request_rate) : ordered_json("inf");
  json["max_concurrency"] =
      options.max_concurrency > 0 ? ordered_json(options.max_concurrency) : ordered_json();
  if (run.interrupted) json["interrupted"] = true;
  if (options.abort_rate > 0) json["abort_rate"] = options.abort_rate;
  add_counts(json, run);
  if (!shown.goodput.empty())
    json["request_goodput"] =
        static_cast<double>(std::ranges::count_if(
            run.outcomes, [&](const auto& outcome) { return is_good(outcome, shown.goodput); })) /
        run.seconds;
  add_peaks(json, run);
  const Times times = times_of(run.outcomes);
  add_metric(json, "ttft", times.ttft, shown.percentiles);
  add_metric(json, "tpot", times.tpot, shown.percentiles);
  add_metric(json, "itl", times.itl, shown.percentiles);
  add_metric(json, "e2el", times.e2el, shown.percentiles);
  add_speculation(json, run);
  json["errors"] = errors_of(run);
  if (shown.detailed) json["requests"] = request_details(run.outcomes);
  return json;
}

}  // namespace tandem::bench
