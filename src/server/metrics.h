// Counters and histograms under vLLM's names, as Prometheus text.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "engine/engine.h"
#include "server/prometheus.h"

namespace tandem::server {

// What one finished choice adds.
struct FinishedChoice {
  std::string reason;  // stop, length, abort, error
  int64_t max_tokens = 0;
  engine::RequestStats stats;
};

// What the gauges show.
struct MetricsState {
  engine::EngineStats engine;
  int64_t num_admitted = 0;
  int64_t block_size = 0;
  int num_draft_tokens = 0;
  bool dummy_weights = false;
  bool synthetic_acceptance = false;
  bool healthy = true;
};

class Metrics {
 public:
  explicit Metrics(const std::string& model_name);

  void add_http(const std::string& method, const std::string& path, int status, double seconds);
  void add_request(int64_t n);
  void add_refusal(const std::string& reason);
  // Seconds from the arrival of a choice to its first token.
  void add_first_token(double seconds);
  void add_finished(const FinishedChoice& choice);
  // `seconds` since the previous event that gave `num_tokens` tokens: each counts with its share.
  void add_inter_token(double seconds, int64_t num_tokens);
  // Tokens of a step: of prompts that began, and kept output.
  void add_step(int64_t num_tokens);

  std::string text(const MetricsState& state) const;

 private:
  void write_gauges(std::string& out, const MetricsState& state) const;
  void write_speculation(std::string& out, const MetricsState& state) const;
  void write_http(std::string& out) const;

  mutable std::mutex mutex_;
  std::string labels_;
  std::map<std::string, int64_t> finished_;
  std::map<std::string, int64_t> refused_;
  std::map<std::string, int64_t> http_;  // labels -> count
  Histogram http_seconds_, first_token_, inter_token_, e2e_, queue_, prefill_, decode_, inference_;
  Histogram prompt_tokens_, generation_tokens_, params_n_, params_max_tokens_, step_tokens_;
};

}  // namespace tandem::server
