#include "bench/step_bench.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "bench/statistics.h"
#include "bench/table.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

// One part of the work and what was measured of it.
struct Line {
  int64_t bytes = 0;  // that it must read; 0: has no roofline
  std::function<std::vector<double>(const Timing&)> measure;
  std::vector<double> seconds = {};
  std::vector<double> middles = {};     // of each turn, in seconds
  std::vector<double> bandwidths = {};  // of each turn, in bytes per second
};

// Every line once per turn, reading memory between them.
void measure_in_turns(const std::function<double()>& read_bandwidth, const StepOptions& options,
                      std::span<Line* const> lines) {
  Timing timing = options.timing;
  timing.min_calls = (timing.min_calls + options.turns - 1) / options.turns;
  timing.min_seconds /= options.turns;
  double before = read_bandwidth();
  for (int turn = 0; turn < options.turns; ++turn)
    for (Line* const line : lines) {
      const std::vector<double> seconds = line->measure(timing);
      const double after = read_bandwidth();
      line->seconds.insert(line->seconds.end(), seconds.begin(), seconds.end());
      line->middles.push_back(median(seconds));
      // Seconds per byte are what adds up.
      line->bandwidths.push_back(2 / (1 / before + 1 / after));
      before = after;
    }
}

ordered_json timed(const Line& line) {
  return {{"calls", line.seconds.size()},
          {"ms", median(line.seconds) * 1e3},
          {"ms_best", *std::ranges::min_element(line.seconds) * 1e3}};
}

ordered_json beside_roofline(const Line& line) {
  const auto bytes = static_cast<double>(line.bytes);
  const double bandwidth = median(line.bandwidths);
  std::vector<double> shares;
  for (size_t turn = 0; turn < line.middles.size(); ++turn)
    shares.push_back(bytes / line.bandwidths[turn] / line.middles[turn]);
  ordered_json result = timed(line);
  result.update({{"bytes", line.bytes},
                 {"gb_per_s", bytes / median(line.seconds) * 1e-9},
                 {"read_gb_per_s", bandwidth * 1e-9},
                 {"roofline_ms", bytes / bandwidth * 1e3},
                 {"share_of_roofline", median(shares)}});
  return result;
}

// Tokens a round gives: by the synthetic rates (an expectation, free of noise), or as counted.
double mean_length(const StepSetup& setup, int num_draft_tokens, int64_t num_tokens,
                   size_t num_rounds) {
  const double counted = static_cast<double>(num_tokens) / static_cast<double>(num_rounds);
  return num_draft_tokens == 0 ? 1 : expected_length(setup, num_draft_tokens).value_or(counted);
}

// A round of K drafts, and the tokens that came out of all that were measured.
struct RoundLine {
  Line line;
  RoundCounts counts;
};

ordered_json round_report(StepModel& model, const StepOptions& options, const RoundLine& round,
                          int num_draft_tokens, const RoundLine& plain) {
  const Line& line = round.line;
  ordered_json result = {{"num_draft_tokens", num_draft_tokens}};
  result.update(beside_roofline(line));
  const double length =
      mean_length(options.setup, num_draft_tokens, round.counts.num_tokens, line.seconds.size());
  result["mean_length"] = length;
  if (num_draft_tokens > 0 && options.setup.synthetic) result["acceptance"] = "synthetic";
  result["tokens_per_s"] = length / median(line.seconds);
  std::vector<double> times_plain;
  for (size_t turn = 0; turn < line.middles.size(); ++turn)
    times_plain.push_back(length * plain.line.middles[turn] / line.middles[turn]);
  result["times_plain"] = median(times_plain);
  const auto on_device = model.round_on_device(options.timing, num_draft_tokens);
  if (!on_device.empty()) result["device_ms"] = median(on_device) * 1e3;
  if (!round.counts.idle_seconds.empty())
    result["idle_us"] = median(round.counts.idle_seconds) * 1e6;
  return result;
}

ordered_json prefill_report(const Line& line, int64_t num_tokens) {
  ordered_json result = {{"tokens", num_tokens}};
  result.update(timed(line));
  result["tokens_per_s"] = static_cast<double>(num_tokens) / median(line.seconds);
  return result;
}

// Microseconds count where a step takes few milliseconds.
std::string milliseconds(const ordered_json& ms) {
  return fmt::format("{:.{}f}", ms.get<double>(), ms.get<double>() < 10 ? 3 : 2);
}

void add_line(Table& table, const std::string& name, const ordered_json& one,
              const std::string& rate = "", const std::string& times_plain = "") {
  table.add({name, milliseconds(one["ms"]), milliseconds(one["roofline_ms"]),
             fmt::format("{:.0f} %", 100 * one["share_of_roofline"].get<double>()),
             fmt::format("{:.1f}", one["read_gb_per_s"].get<double>()), rate, times_plain});
}

}  // namespace

std::optional<double> expected_length(const StepSetup& setup, int num_draft_tokens) {
  if (!setup.synthetic) return std::nullopt;
  const auto& rates = setup.synthetic->rates;
  const auto count = std::min(rates.size(), static_cast<size_t>(num_draft_tokens));
  return 1 +
         std::accumulate(rates.begin(), rates.begin() + static_cast<std::ptrdiff_t>(count), 0.0);
}

namespace {

// All lines of a run; made once, because they are pointed at.
struct Lines {
  std::vector<Line> verify;  // 1 row, 2 rows, ...
  std::optional<Line> draft;
  std::vector<RoundLine> rounds;  // no drafts, 1, ...
  std::optional<Line> prefill;

  Lines(StepModel& model, const StepBytes& bytes, const StepSetup& setup)
      : rounds(static_cast<size_t>(setup.num_draft_tokens) + 1) {
    for (int rows = 1; rows <= setup.max_rows; ++rows)
      verify.push_back(
          {bytes.verify(rows), [&model, rows](const Timing& t) { return model.verify(t, rows); }});
    if (bytes.draft > 0)
      draft = Line{bytes.draft_step(), [&model](const Timing& t) { return model.draft(t); }};
    for (int k = 0; k <= setup.num_draft_tokens; ++k) {
      RoundLine& round = rounds[static_cast<size_t>(k)];
      round.line = {bytes.round(1, k), [&model, &round, k](const Timing& t) {
                      return model.round(t, k, round.counts);
                    }};
    }
    if (setup.prefill_tokens > 0)
      prefill = Line{
          0, [&model, n = setup.prefill_tokens](const Timing& t) { return model.prefill(t, n); }};
  }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  std::vector<Line*> all() {
    std::vector<Line*> lines;
    for (Line& line : verify) lines.push_back(&line);
    if (draft) lines.push_back(&*draft);
    for (RoundLine& round : rounds) lines.push_back(&round.line);
    if (prefill) lines.push_back(&*prefill);
    return lines;
  }
};

}  // namespace

sampling::SamplingParams sampling_of(const StepSetup& setup) {
  sampling::SamplingParams params;
  params.temperature = setup.sampled ? 1.0 : 0.0;
  if (!setup.sampled) return params;
  params.top_k = 64;
  params.top_p = 0.95;
  return params;
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
  if (bytes.target_spared > 0)
    result["bytes"].update({{"target_spared_by_screen", bytes.target_spared},
                            {"draft_spared_by_screen", bytes.draft_spared}});
  if (setup.synthetic) result["acceptance"] = "synthetic";
  if (setup.sampled) result["sampled"] = true;
  result["turns"] = options.turns;
  Lines lines(model, bytes, setup);
  measure_in_turns(read_bandwidth, options, lines.all());
  for (size_t i = 0; i < lines.verify.size(); ++i) {
    ordered_json one = {{"rows", i + 1}};
    one.update(beside_roofline(lines.verify[i]));
    result["verify"].push_back(std::move(one));
  }
  if (lines.draft) result["draft"] = beside_roofline(*lines.draft);
  for (int k = 0; k <= setup.num_draft_tokens; ++k)
    result["rounds"].push_back(round_report(model, options, lines.rounds[static_cast<size_t>(k)], k,
                                            lines.rounds.front()));
  if (lines.prefill) result["prefill"] = prefill_report(*lines.prefill, setup.prefill_tokens);
  return result;
}

std::string step_table(const ordered_json& result) {
  Table table({"step", "ms", "roofline ms", "share", "read GB/s", "tokens/s", "x plain"});
  for (const ordered_json& one : result["verify"])
    add_line(table, fmt::format("verify, {} rows", one["rows"].get<int>()), one);
  if (result.contains("draft")) add_line(table, "draft step", result["draft"]);
  for (const ordered_json& one : result["rounds"]) {
    const int k = one["num_draft_tokens"];
    const std::string note =
        k == 0 ? "plain"
               : fmt::format("round, K = {}, length {:.2f}{}", k, one["mean_length"].get<double>(),
                             one.contains("acceptance") ? " (synthetic)" : "");
    const std::string device =
        one.contains("idle_us")
            ? fmt::format(" (device {:.3f} ms, idle {:.0f} us)", one["device_ms"].get<double>(),
                          one["idle_us"].get<double>())
            : "";
    add_line(table, note + device, one, fmt::format("{:.2f}", one["tokens_per_s"].get<double>()),
             fmt::format("{:.2f}", one["times_plain"].get<double>()));
  }
  if (result.contains("prefill")) {
    const ordered_json& one = result["prefill"];
    table.add({fmt::format("prefill, {} tokens", one["tokens"].get<int64_t>()),
               fmt::format("{:.2f}", one["ms"].get<double>()), "-", "-", "-",
               fmt::format("{:.1f}", one["tokens_per_s"].get<double>()), ""});
  }
  return table.text();
}

}  // namespace tandem::bench
