#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "server/process_metrics.h"

namespace tandem::server {
namespace {

constexpr std::array kFirstTokenBounds = {0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                                          0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                                          20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
constexpr std::array kInterTokenBounds = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
                                          0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
constexpr std::array kRequestBounds = {0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,
                                       5.0,  10.0,  15.0,  20.0,  30.0,  40.0,   50.0,
                                       60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
constexpr std::array kTokenBounds = {1.0,     2.0,     5.0,     10.0,     20.0,    50.0,
                                     100.0,   200.0,   500.0,   1000.0,   2000.0,  5000.0,
                                     10000.0, 20000.0, 50000.0, 100000.0, 200000.0};
constexpr std::array kStepBounds = {1.0,   8.0,    16.0,   32.0,   64.0,   128.0,  256.0,
                                    512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0};
constexpr std::array kNBounds = {1.0, 2.0, 5.0, 10.0, 20.0};
constexpr std::array kHttpBounds = {0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0};

}  // namespace

Metrics::Metrics(const std::string& model_name)
    : labels_(fmt::format("model_name=\"{}\",engine=\"0\"", escape_label(model_name))),
      finished_({{"stop", 0}, {"length", 0}, {"abort", 0}, {"error", 0}}),
      refused_({{"queue_full", 0}, {"invalid", 0}, {"unauthorized", 0}, {"draining", 0}}),
      http_seconds_(kHttpBounds),
      first_token_(kFirstTokenBounds),
      inter_token_(kInterTokenBounds),
      e2e_(kRequestBounds),
      queue_(kRequestBounds),
      prefill_(kRequestBounds),
      decode_(kRequestBounds),
      inference_(kRequestBounds),
      prompt_tokens_(kTokenBounds),
      generation_tokens_(kTokenBounds),
      params_n_(kNBounds),
      params_max_tokens_(kTokenBounds),
      step_tokens_(kStepBounds) {}

void Metrics::add_http(const std::string& method, const std::string& path, int status,
                       double seconds) {
  const std::lock_guard lock(mutex_);
  ++http_[fmt::format("method=\"{}\",handler=\"{}\",status=\"{}\"", method, path, status)];
  http_seconds_.observe(seconds);
}

void Metrics::add_request(int64_t n) {
  const std::lock_guard lock(mutex_);
  params_n_.observe(static_cast<double>(n));
}

void Metrics::add_refusal(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  ++refused_[reason];
}

void Metrics::add_first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_.observe(seconds);
}

void Metrics::add_finished(const FinishedChoice& choice) {
  const std::lock_guard lock(mutex_);
  const engine::RequestStats& stats = choice.stats;
  ++finished_[choice.reason];
  prompt_tokens_.observe(static_cast<double>(stats.num_prompt_tokens));
  generation_tokens_.observe(static_cast<double>(stats.num_output_tokens));
  params_max_tokens_.observe(static_cast<double>(choice.max_tokens));
  e2e_.observe(stats.total_seconds);
  if (stats.first_token_seconds <= 0) return;
  queue_.observe(stats.queue_seconds);
  prefill_.observe(stats.first_token_seconds - stats.queue_seconds);
  decode_.observe(stats.total_seconds - stats.first_token_seconds);
  inference_.observe(stats.total_seconds - stats.queue_seconds);
}

void Metrics::add_inter_token(double seconds, int64_t num_tokens) {
  if (num_tokens <= 0) return;
  const std::lock_guard lock(mutex_);
  inter_token_.observe(seconds / static_cast<double>(num_tokens), num_tokens);
}

void Metrics::add_step(int64_t num_tokens) {
  const std::lock_guard lock(mutex_);
  step_tokens_.observe(static_cast<double>(num_tokens));
}

std::string Metrics::text(const MetricsState& state) const {
  const std::lock_guard lock(mutex_);
  std::string out;
  write_gauges(out, state);
  write_speculation(out, state);
  begin_metric(out, "vllm:request_success_total", "Finished requests by reason.", "counter");
  for (const auto& [reason, count] : finished_)
    write_sample(out, "vllm:request_success_total", labels_ + ",finished_reason=\"" + reason + "\"",
                 static_cast<double>(count));
  begin_metric(out, "tandem:request_refused_total", "Requests refused before any work.", "counter");
  for (const auto& [reason, count] : refused_)
    write_sample(out, "tandem:request_refused_total", labels_ + ",reason=\"" + reason + "\"",
                 static_cast<double>(count));
  const auto histogram = [&](const Histogram& which, const char* name, const char* help) {
    which.write(out, std::string("vllm:") + name, help, labels_);
  };
  histogram(first_token_, "time_to_first_token_seconds", "Arrival to first token.");
  histogram(inter_token_, "inter_token_latency_seconds",
            "Time since the previous step's tokens, divided by the tokens of this step.");
  histogram(e2e_, "e2e_request_latency_seconds", "Arrival to end.");
  histogram(queue_, "request_queue_time_seconds", "Arrival to first step.");
  histogram(prefill_, "request_prefill_time_seconds", "First step to first token.");
  histogram(decode_, "request_decode_time_seconds", "First token to end.");
  histogram(inference_, "request_inference_time_seconds", "First step to end.");
  histogram(prompt_tokens_, "request_prompt_tokens", "Prompt tokens of a request.");
  histogram(generation_tokens_, "request_generation_tokens", "Output tokens of a request.");
  histogram(params_n_, "request_params_n", "The parameter n.");
  histogram(params_max_tokens_, "request_params_max_tokens", "Most output tokens of a request.");
  histogram(step_tokens_, "iteration_tokens_total",
            "Tokens of a step: of prompts that began, and output.");
  write_http(out);
  write_process_metrics(out);
  return out;
}

void Metrics::write_gauges(std::string& out, const MetricsState& state) const {
  const engine::EngineStats& engine = state.engine;
  const auto pages = static_cast<double>(std::max<int64_t>(engine.num_pages, 1));
  write_gauge(out, "vllm:num_requests_running", "Requests that run.", labels_,
              static_cast<double>(engine.num_running));
  write_gauge(out, "vllm:num_requests_waiting", "Requests that wait for their first step.", labels_,
              static_cast<double>(std::max<int64_t>(state.num_admitted - engine.num_running, 0)));
  write_gauge(out, "vllm:kv_cache_usage_perc", "Share of KV pages in use, 0 to 1.", labels_,
              static_cast<double>(engine.num_held_pages) / pages);
  write_gauge(out, "tandem:healthy", "1, or 0 while a step takes longer than it should.", labels_,
              state.healthy ? 1 : 0);
  write_gauge(out, "vllm:cache_config_info", "Sizes of the KV cache.",
              fmt::format("{},block_size=\"{}\",num_gpu_blocks=\"{}\"", labels_, state.block_size,
                          engine.num_pages),
              1);
  write_gauge(out, "tandem:run_info", "Whether weights and acceptance are real.",
              fmt::format("{},weights=\"{}\",acceptance=\"{}\"", labels_,
                          state.dummy_weights ? "dummy" : "checkpoint",
                          state.synthetic_acceptance ? "synthetic" : "real"),
              1);
  write_counter(out, "vllm:num_preemptions_total", "Preempted requests.", labels_,
                static_cast<double>(engine.num_preemptions));
  write_counter(out, "vllm:prefix_cache_queries_total",
                "Prompt tokens looked up in the prefix cache.", labels_,
                static_cast<double>(engine.num_prefix_queries));
  write_counter(out, "vllm:prefix_cache_hits_total", "Prompt tokens found there.", labels_,
                static_cast<double>(engine.num_prefix_hits));
  write_counter(out, "vllm:prompt_tokens_total", "Prompt tokens of requests that began.", labels_,
                static_cast<double>(engine.num_prompt_tokens));
  write_counter(out, "vllm:generation_tokens_total", "Output tokens.", labels_,
                static_cast<double>(engine.num_output_tokens));
}

void Metrics::write_speculation(std::string& out, const MetricsState& state) const {
  const auto& acceptance = state.engine.acceptance;
  write_counter(out, "vllm:spec_decode_num_drafts_total", "Rounds with a proposal.", labels_,
                static_cast<double>(acceptance.num_drafts));
  write_counter(out, "vllm:spec_decode_num_draft_tokens_total", "Proposed tokens.", labels_,
                static_cast<double>(acceptance.num_draft_tokens));
  write_counter(out, "vllm:spec_decode_num_accepted_tokens_total", "Accepted tokens.", labels_,
                static_cast<double>(acceptance.num_accepted_tokens));
  write_counter(out, "tandem:acceptance_warnings_total",
                "Times that next to no draft was accepted; the log says why that may be.", labels_,
                static_cast<double>(state.engine.num_acceptance_warnings));
  const std::string name = "vllm:spec_decode_num_accepted_tokens_per_pos_total";
  begin_metric(out, name, "Accepted tokens by place in the draft, from 0.", "counter");
  for (int i = 0; i < state.num_draft_tokens; ++i)
    write_sample(out, name, fmt::format("{},position=\"{}\"", labels_, i),
                 static_cast<double>(acceptance.accepted_per_pos[static_cast<size_t>(i)]));
}

void Metrics::write_http(std::string& out) const {
  begin_metric(out, "http_requests_total", "HTTP replies.", "counter");
  for (const auto& [labels, count] : http_)
    write_sample(out, "http_requests_total", labels, static_cast<double>(count));
  http_seconds_.write(out, "http_request_duration_seconds", "Time of HTTP requests.", "");
}

}  // namespace tandem::server
