#include "server/stats_log.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::server {
namespace {

// `stats`: of the interval; there are drafts.
std::string speculation_line(const speculation::AcceptanceStats& stats, double seconds) {
  std::string rates;
  for (size_t i = 0; i < stats.proposed_per_pos.size() && stats.proposed_per_pos[i] > 0; ++i)
    rates += fmt::format("{}{:.3f}", i == 0 ? "" : ", ", stats.rate_at(static_cast<int>(i)));
  return fmt::format(
      "SpecDecoding metrics: Mean acceptance length: {:.2f}, Accepted throughput: {:.2f} tokens/s, "
      "Drafted throughput: {:.2f} tokens/s, Accepted: {} tokens, Drafted: {} tokens, Per-position "
      "acceptance rate: {}, Avg Draft acceptance rate: {:.1f}%",
      stats.mean_acceptance_length(), static_cast<double>(stats.num_accepted_tokens) / seconds,
      static_cast<double>(stats.num_draft_tokens) / seconds, stats.num_accepted_tokens,
      stats.num_draft_tokens, rates, 100 * stats.acceptance_rate());
}

}  // namespace

std::vector<std::string> describe_interval(const engine::EngineStats& before,
                                           const engine::EngineStats& after, int64_t num_waiting,
                                           double seconds) {
  const auto rate = [&](int64_t from, int64_t to) {
    return static_cast<double>(to - from) / seconds;
  };
  const bool idle = after.num_steps == before.num_steps && after.num_running == 0;
  if (idle || seconds <= 0) return {};
  std::vector<std::string> lines;
  lines.push_back(fmt::format(
      "Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, "
      "Running: "
      "{} reqs, Waiting: {} reqs, KV cache usage: {:.1f}%, Prefix cache hit rate: {:.1f}%",
      rate(before.num_prompt_tokens, after.num_prompt_tokens),
      rate(before.num_output_tokens, after.num_output_tokens), after.num_running, num_waiting,
      100 * static_cast<double>(after.num_held_pages) /
          static_cast<double>(std::max<int64_t>(after.num_pages, 1)),
      100 * static_cast<double>(after.num_prefix_hits - before.num_prefix_hits) /
          static_cast<double>(
              std::max<int64_t>(after.num_prefix_queries - before.num_prefix_queries, 1))));
  const speculation::AcceptanceStats drafted = after.acceptance.since(before.acceptance);
  if (drafted.num_drafts > 0) lines.push_back(speculation_line(drafted, seconds));
  return lines;
}

}  // namespace tandem::server
