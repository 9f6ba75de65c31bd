#include "bench/step_bench.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "bench/statistics.h"
#include "bench/table.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

ordered_json line(const std::vector<double>& seconds, int64_t bytes, double bandwidth) {
  const double middle = median(seconds);
  const double roofline = static_cast<double>(bytes) / bandwidth;
  return {{"calls", seconds.size()},
          {"ms", middle * 1e3},
          {"ms_best", *std::ranges::min_element(seconds) * 1e3},
          {"bytes", bytes},
          {"gb_per_s", static_cast<double>(bytes) / middle * 1e-9},
          {"read_gb_per_s", bandwidth * 1e-9},
          {"roofline_ms", roofline * 1e3},
          {"share_of_roofline", roofline / middle}};
}

// Tokens a round gives: by the synthetic rates (an expectation, free of noise), or as counted.
double mean_length(const StepSetup& setup, int num_draft_tokens, int64_t num_tokens,
                   size_t num_rounds) {
  const double counted = static_cast<double>(num_tokens) / static_cast<double>(num_rounds);
  return num_draft_tokens == 0 ? 1 : expected_length(setup, num_draft_tokens).value_or(counted);
}

ordered_json round_line(const std::function<double()>& read_bandwidth, StepModel& model,
                        const StepBytes& bytes, const StepOptions& options, int num_draft_tokens) {
  int64_t num_tokens = 0;
  const double bandwidth = read_bandwidth();
  const auto seconds = model.round(options.timing, num_draft_tokens, num_tokens);
  ordered_json result = {{"num_draft_tokens", num_draft_tokens}};
  result.update(line(seconds, bytes.round(1, num_draft_tokens), bandwidth));
  const double length = mean_length(options.setup, num_draft_tokens, num_tokens, seconds.size());
  result["mean_length"] = length;
  if (num_draft_tokens > 0 && options.setup.synthetic) result["acceptance"] = "synthetic";
  result["tokens_per_s"] = length / median(seconds);
  const auto on_device = model.round_on_device(options.timing, num_draft_tokens);
  if (!on_device.empty()) {
    result["device_ms"] = median(on_device) * 1e3;
    result["host_gap_us"] = (median(seconds) - median(on_device)) * 1e6;
  }
  return result;
}

// Microseconds count where a step takes few milliseconds.
std::string milliseconds(const ordered_json& ms) {
  return fmt::format("{:.{}f}", ms.get<double>(), ms.get<double>() < 10 ? 3 : 2);
}

void add_line(Table& table, const std::string& name, const ordered_json& one,
              const std::string& rate) {
  table.add({name, milliseconds(one["ms"]), milliseconds(one["roofline_ms"]),
             fmt::format("{:.0f} %", 100 * one["share_of_roofline"].get<double>()),
             fmt::format("{:.1f}", one["read_gb_per_s"].get<double>()), rate});
}

}  // namespace

std::optional<double> expected_length(const StepSetup& setup, int num_draft_tokens) {
  if (!setup.synthetic) return std::nullopt;
  const auto& rates = setup.synthetic->rates;
  const auto count = std::min(rates.size(), static_cast<size_t>(num_draft_tokens));
  return 1 +
         std::accumulate(rates.begin(), rates.begin() + static_cast<std::ptrdiff_t>(count), 0.0);
}

ordered_json run_step_bench(const std::function<double()>& read_bandwidth, StepModel& model,
                            const StepBytes& bytes, const StepOptions& options) {
  const StepSetup& setup = options.setup;
  ordered_json result = {{"context", setup.context},
                         {"bytes",
                          {{"target_body", bytes.target_body},
                           {"target_head", bytes.target_head},
                           {"target_kv", bytes.target_kv},
                           {"draft_step", bytes.draft}}}};
  if (setup.synthetic) result["acceptance"] = "synthetic";
  for (int rows = 1; rows <= setup.max_rows; ++rows) {
    const double bandwidth = read_bandwidth();
    ordered_json one = {{"rows", rows}};
    one.update(line(model.verify(options.timing, rows), bytes.verify(), bandwidth));
    result["verify"].push_back(std::move(one));
  }
  const double bandwidth = read_bandwidth();
  if (bytes.draft > 0) result["draft"] = line(model.draft(options.timing), bytes.draft, bandwidth);
  for (int k = 0; k <= setup.num_draft_tokens; ++k)
    result["rounds"].push_back(round_line(read_bandwidth, model, bytes, options, k));
  if (setup.prefill_tokens > 0) {
    const auto seconds = model.prefill(options.timing, setup.prefill_tokens);
    result["prefill"] = {
        {"tokens", setup.prefill_tokens},
        {"calls", seconds.size()},
        {"ms", median(seconds) * 1e3},
        {"tokens_per_s", static_cast<double>(setup.prefill_tokens) / median(seconds)}};
  }
  return result;
}

std::string step_table(const ordered_json& result) {
  Table table({"step", "ms", "roofline ms", "share", "read GB/s", "tokens/s"});
  for (const ordered_json& one : result["verify"])
    add_line(table, fmt::format("verify, {} rows", one["rows"].get<int>()), one, "");
  if (result.contains("draft")) add_line(table, "draft step", result["draft"], "");
  for (const ordered_json& one : result["rounds"]) {
    const int k = one["num_draft_tokens"];
    const std::string note =
        k == 0 ? "plain"
               : fmt::format("round, K = {}, length {:.2f}{}", k, one["mean_length"].get<double>(),
                             one.contains("acceptance") ? " (synthetic)" : "");
    const std::string gap =
        one.contains("host_gap_us")
            ? fmt::format(" (device {:.3f} ms, gap {:.0f} us)", one["device_ms"].get<double>(),
                          one["host_gap_us"].get<double>())
            : "";
    add_line(table, note + gap, one, fmt::format("{:.2f}", one["tokens_per_s"].get<double>()));
  }
  if (result.contains("prefill")) {
    const ordered_json& one = result["prefill"];
    table.add({fmt::format("prefill, {} tokens", one["tokens"].get<int64_t>()),
               fmt::format("{:.2f}", one["ms"].get<double>()), "-", "-", "-",
               fmt::format("{:.1f}", one["tokens_per_s"].get<double>())});
  }
  return table.text();
}

}  // namespace tandem::bench
