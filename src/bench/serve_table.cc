// bench serve's table: the rows people know from vLLM, in its order.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/serve_result.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

constexpr size_t kWidth = 50;

std::string heading(const std::string& text, char fill) {
  const size_t free = kWidth - std::min(kWidth, text.size());
  return std::string(free / 2, fill) + text + std::string(free - free / 2, fill) + "\n";
}

// A row, when the result has the figure.
void add_row(std::string& text, const ordered_json& result, const std::string& name,
             const std::string& key) {
  const auto found = result.find(key);
  if (found == result.end() || found->is_null()) return;
  const std::string value = found->is_number_float() ? fmt::format("{:.2f}", found->get<double>())
                            : found->is_string()     ? found->get<std::string>()
                                                     : found->dump();
  text += fmt::format("{:<40} {:<10}\n", name, value);
}

void add_times(std::string& text, const ordered_json& result, const std::string& title,
               const std::string& shown, const std::string& name) {
  text += heading(title, '-');
  add_row(text, result, fmt::format("Mean {} (ms):", shown), "mean_" + name + "_ms");
  add_row(text, result, fmt::format("Median {} (ms):", shown), "median_" + name + "_ms");
  for (const auto& [key, unused] : result.items())
    if (key.starts_with('p') && key.ends_with("_" + name + "_ms"))
      add_row(text, result, fmt::format("P{} {} (ms):", key.substr(1, key.find('_') - 1), shown),
              key);
}

void add_speculation(std::string& text, const ordered_json& result) {
  if (!result.contains("spec_decode_num_drafts")) return;
  const bool synthetic = result.contains("acceptance");
  text += heading(synthetic ? "Speculative Decoding (synthetic)" : "Speculative Decoding", '-');
  add_row(text, result, "Acceptance rate (%):", "spec_decode_acceptance_rate");
  add_row(text, result, "Acceptance length:", "spec_decode_acceptance_length");
  add_row(text, result, "Drafts:", "spec_decode_num_drafts");
  add_row(text, result, "Draft tokens:", "spec_decode_draft_tokens");
  add_row(text, result, "Accepted tokens:", "spec_decode_accepted_tokens");
  text += "Per-position acceptance (%):\n";
  int position = 0;
  for (const ordered_json& rate : result["spec_decode_per_position_acceptance_rates"])
    text += fmt::format("{:<40} {:<10.2f}\n", fmt::format("  Position {}:", position++),
                        100 * rate.get<double>());
}

}  // namespace

std::string serve_table(const ordered_json& result) {
  std::string text = heading(" Serving Benchmark Result ", '=');
  add_row(text, result, "Weights:", "weights");
  add_row(text, result, "Interrupted:", "interrupted");
  add_row(text, result, "Successful requests:", "completed");
  add_row(text, result, "Failed requests:", "failed");
  if (result.value("aborted", 0) > 0) add_row(text, result, "Hung up as planned:", "aborted");
  add_row(text, result, "Refused with 429:", "refused");
  add_row(text, result, "P99 refusal (ms):", "p99_refusal_ms");
  add_row(text, result, "Maximum request concurrency:", "max_concurrency");
  add_row(text, result, "Request rate configured (RPS):", "request_rate");
  add_row(text, result, "Benchmark duration (s):", "duration");
  add_row(text, result, "Total input tokens:", "total_input_tokens");
  add_row(text, result, "Total generated tokens:", "total_output_tokens");
  add_row(text, result, "Request throughput (req/s):", "request_throughput");
  add_row(text, result, "Request goodput (req/s):", "request_goodput");
  add_row(text, result, "Output token throughput (tok/s):", "output_throughput");
  add_row(text, result, "Peak output token throughput (tok/s):", "max_output_tokens_per_s");
  add_row(text, result, "Peak concurrent requests:", "max_concurrent_requests");
  add_row(text, result, "Total Token throughput (tok/s):", "total_token_throughput");
  add_times(text, result, "Time to First Token", "TTFT", "ttft");
  add_times(text, result, "Time per Output Token (excl. 1st token)", "TPOT", "tpot");
  add_times(text, result, "Inter-token Latency", "ITL", "itl");
  add_times(text, result, "End-to-end Latency", "E2EL", "e2el");
  add_speculation(text, result);
  text += heading("", '=');
  if (!result["errors"].empty()) text += "Errors: " + result["errors"].dump() + "\n";
  return text;
}

}  // namespace tandem::bench
