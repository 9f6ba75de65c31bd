#include "server/stats_log.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::server {
namespace {

std::string speculation_line(const speculation::AcceptanceStats& before,
                             const speculation::AcceptanceStats& after, double seconds) {
  const auto drafts = static_cast<double>(after.num_drafts - before.num_drafts);
  const int64_t drafted = after.num_draft_tokens - before.num_draft_tokens;
  const int64_t accepted = after.num_accepted_tokens - before.num_accepted_tokens;
  std::string rates;
  for (size_t i = 0; i < after.proposed_per_pos.size(); ++i) {
    if (after.proposed_per_pos[i] == before.proposed_per_pos[i]) break;
    rates += fmt::format(
        "{}{:.3f}", i == 0 ? "" : ", ",
        static_cast<double>(after.accepted_per_pos[i] - before.accepted_per_pos[i]) / drafts);
  }
  return fmt::format(
      "SpecDecoding metrics: Mean acceptance length: {:.2f}, Accepted throughput: {:.2f} tokens/s, "
      "Drafted throughput: {:.2f} tokens/s, Accepted: {} tokens, Drafted: {} tokens, Per-position "
      "acceptance rate: {}, Avg Draft acceptance rate: {:.1f}%",
      1 + static_cast<double>(accepted) / drafts, static_cast<double>(accepted) / seconds,
      static_cast<double>(drafted) / seconds, accepted, drafted, rates,
      100 * static_cast<double>(accepted) / static_cast<double>(drafted));
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
  if (after.acceptance.num_drafts > before.acceptance.num_drafts)
    lines.push_back(speculation_line(before.acceptance, after.acceptance, seconds));
  return lines;
}

}  // namespace tandem::server
