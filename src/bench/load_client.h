// Many requests to one server at the times a plan says, from one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bench/endpoint.h"

namespace tandem::bench {

struct PlannedRequest {
  size_t prompt = 0;      // which prompt it asks, for whoever reads the outcomes
  double at_seconds = 0;  // when it arrives, from the start of the run
  std::string path = {};
  std::string body = {};
  // Hangs up when so many parts of the answer have come; nothing: stays.
  std::optional<int64_t> abort_after = std::nullopt;
};

struct RequestOutcome {
  size_t prompt = 0;
  int status = 0;  // of HTTP; 0 when no head came
  bool success = false;
  bool aborted = false;  // hung up as planned
  std::string error;
  double start = 0;                // seconds from the start of the run
  double ttft = 0;                 // until the first part with content
  double latency = 0;              // until the end
  std::vector<double> part_times;  // when each part with content came, from the start of the run
  int64_t num_prompt_tokens = 0;   // as the server counts
  int64_t num_output_tokens = 0;   // too; where it does not, its token ids, or the parts
  std::string text;
  std::vector<int32_t> token_ids;  // where the server sends them
};

struct LoadClientOptions {
  int64_t max_concurrency = 0;    // 0: as many as arrive
  double timeout_seconds = 3600;  // of one request
  double send_seconds = 0;        // no request begins later, had it no room before; 0: no end
};

// `next` gives the requests in order of arrival, and nothing when there are no more; it is asked as
// soon as the one before has begun. Outcomes come in order of their ends. `stopped` ends the run.
std::vector<RequestOutcome> run_load(const Endpoint& endpoint, const LoadClientOptions& options,
                                     const std::function<std::optional<PlannedRequest>()>& next,
                                     const std::function<bool()>& stopped);

}  // namespace tandem::bench
