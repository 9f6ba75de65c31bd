// tandem bench serve: load on a server over HTTP, and what its users would feel. Names as vLLM's.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/load_client.h"
#include "bench/random_prompts.h"

namespace tandem::bench {

struct ServeBenchOptions {
  Endpoint endpoint;
  bool chat = false;              // /v1/chat/completions, else /v1/completions
  std::string path = {};          // another one
  std::string model = {};         // empty: the first the server names
  std::string dataset_path = {};  // JSON lines; empty: random prompts
  RandomLengths lengths;          // output_len also of lines that name none
  int64_t min_token_id = 500;     // random ids: past special tokens and bytes
  int64_t max_token_id = 4000;
  int64_t num_prompts = 1000;
  double request_rate = 0;  // per second; 0: all at once
  double burstiness = 1;    // shape of the gamma distribution of gaps; 1: Poisson
  int64_t max_concurrency = 0;
  double duration_seconds = 0;  // > 0: prompts again and again for so long
  double abort_rate = 0;        // share of requests that hang up in the middle
  int64_t num_warmups = 0;
  bool ignore_eos = false;
  bool token_ids = false;  // ask for them and keep them
  std::optional<double> temperature;
  std::string extra_body = {};  // JSON, merged into every request
  uint64_t seed = 0;
  double ready_seconds = 600;
  double timeout_seconds = 3600;
};

// One prompt as it is sent, but for its parameters.
struct ServePrompt {
  std::string field;  // "prompt" or "messages"
  std::string json;   // its value
  int64_t output_len = 0;
};

base::Status check_serve_options(const ServeBenchOptions& options);

// JSON lines of {"prompt"} or {"messages"}, and maybe "output_tokens"; at most `count`.
base::Result<std::vector<ServePrompt>> read_serve_prompts(const std::string& path, bool chat,
                                                          int64_t count, int64_t output_len);

// When request i of `count` arrives: gaps of a gamma distribution with mean 1 / rate, all of them
// scaled so that the last one arrives after count / rate seconds.
std::vector<double> arrival_times(int64_t count, double rate, double burstiness, uint64_t seed);

// Counters of speculation, and how the server runs, from /metrics.
struct ServerCounters {
  bool present = false;
  double num_drafts = 0;
  double num_draft_tokens = 0;
  double num_accepted_tokens = 0;
  std::vector<double> accepted_per_position = {};
  bool synthetic = false;
  bool dummy = false;
};
ServerCounters parse_counters(std::string_view metrics);

struct ServeRun {
  std::vector<ServePrompt> prompts;
  std::vector<RequestOutcome> outcomes;
  double seconds = 0;
  std::string model;
  ServerCounters before, after;
  bool interrupted = false;  // not all requests were sent, or not all that were have ended
};

// Waits for the server, warms it up, loads it.
base::Result<ServeRun> run_serve_bench(ServeBenchOptions& options,
                                       const std::function<bool()>& stopped);

}  // namespace tandem::bench
