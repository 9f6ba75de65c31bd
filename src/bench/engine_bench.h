// tandem bench latency and throughput: the engine alone, no HTTP and no text.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/random_prompts.h"
#include "engine/engine.h"

namespace tandem::bench {

// How long every request of a run took and what it gave.
struct EngineRun {
  double seconds = 0;
  int64_t num_input_tokens = 0;
  int64_t num_output_tokens = 0;
  int64_t num_begun_tokens = 0;  // of these, those that were there when all requests had begun
  int64_t num_steps = 0;
  int64_t num_preemptions = 0;
  std::vector<double> first_token_seconds;  // of each request, from the start of the run
  std::vector<double> step_seconds;
  speculation::AcceptanceStats acceptance;
};

// Adds all prompts at once and steps until they are done; eos is ignored. `stopped` ends it early.
base::Result<EngineRun> run_engine(engine::Engine& engine, const std::vector<RandomPrompt>& prompts,
                                   const std::function<bool()>& stopped);

struct LatencyOptions {
  int64_t batch_size = 8;
  int num_iters_warmup = 2;
  int num_iters = 5;
  RandomLengths lengths;
  uint64_t seed = 0;
};

// vLLM's keys: avg_latency, latencies, percentiles; and what came of it per second.
base::Result<nlohmann::ordered_json> run_latency(engine::Engine& engine,
                                                 const LatencyOptions& options,
                                                 std::span<const int32_t> excluded,
                                                 const std::function<bool()>& stopped);
std::string latency_text(const nlohmann::ordered_json& result);

struct ThroughputOptions {
  int64_t num_prompts = 64;
  int num_iters_warmup = 0;  // times that all of them run before the time that counts
  RandomLengths lengths;
  uint64_t seed = 0;
};

// vLLM's keys: elapsed_time, num_requests, total_num_tokens, requests_per_second,
// tokens_per_second.
base::Result<nlohmann::ordered_json> run_throughput(engine::Engine& engine,
                                                    const ThroughputOptions& options,
                                                    std::span<const int32_t> excluded,
                                                    const std::function<bool()>& stopped);
std::string throughput_text(const nlohmann::ordered_json& result);

// Decoding of `num_sequences` at once that does nothing but read `round_bytes` for each round of
// `mean_length` tokens: adds "read_gb_per_s", "roofline_tokens_per_second" and, for a latency
// report, "share_of_roofline".
void add_roofline(nlohmann::ordered_json& report, int64_t num_sequences, double mean_length,
                  int64_t round_bytes, double read_bandwidth);
std::string roofline_text(const nlohmann::ordered_json& report);

// {"num_drafts", ..., "mean_acceptance_length", "acceptance_per_position"}.
nlohmann::ordered_json acceptance_json(const speculation::AcceptanceStats& stats,
                                       int num_draft_tokens);

}  // namespace tandem::bench
