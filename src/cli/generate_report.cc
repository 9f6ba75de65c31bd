#include "cli/generate_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace tandem::cli {
namespace {

using nlohmann::ordered_json;

ordered_json spec_json(const speculation::AcceptanceStats& acceptance, int num_draft_tokens) {
  ordered_json per_position = ordered_json::array();
  for (int i = 0; i < num_draft_tokens; ++i)
    per_position.push_back(acceptance.accepted_per_pos[static_cast<size_t>(i)]);
  return {{"num_drafts", acceptance.num_drafts},
          {"num_draft_tokens", acceptance.num_draft_tokens},
          {"num_accepted_tokens", acceptance.num_accepted_tokens},
          {"accepted_per_pos", std::move(per_position)},
          {"mean_acceptance_length", acceptance.mean_acceptance_length()}};
}

double per_second(int64_t num_tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(num_tokens) / seconds : 0.0;
}

}  // namespace

std::string finish_reason_name(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kCancelled:
      return "cancelled";
    case engine::FinishReason::kError:
      return "error";
  }
  return "error";
}

std::string answer_json(const AnswerReport& report) {
  const engine::RequestStats& stats = report.finish->stats;
  const Answer& answer = *report.answer;
  const auto num_tokens = static_cast<int64_t>(answer.token_ids().size());
  ordered_json json;
  json["id"] = report.id != nullptr ? *report.id : ordered_json(report.index);
  json["prompt"] = report.prompt != nullptr ? ordered_json(*report.prompt) : ordered_json();
  json["num_prompt_tokens"] = stats.num_prompt_tokens;
  json["token_ids"] = answer.token_ids();
  json["text"] = answer.has_text() ? ordered_json(answer.text()) : ordered_json();
  json["finish_reason"] = answer.stopped() ? "stop" : finish_reason_name(report.finish->reason);
  if (!report.finish->error.empty()) json["error"] = report.finish->error;
  json["timings"] = {
      {"queue_s", stats.queue_seconds},
      {"ttft_s", stats.first_token_seconds},
      {"total_s", stats.total_seconds},
      {"tokens_per_s", per_second(num_tokens, stats.total_seconds - stats.queue_seconds)}};
  json["spec"] = spec_json(stats.acceptance, report.num_draft_tokens);
  if (report.synthetic) json["spec"]["synthetic"] = true;
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string describe_run(int64_t num_tokens, double seconds,
                         const speculation::AcceptanceStats& acceptance, int num_draft_tokens,
                         bool synthetic) {
  std::string line =
      fmt::format("{} token{} in {:.2f} s ({:.0f} tokens/s)", num_tokens,
                  num_tokens == 1 ? "" : "s", seconds, per_second(num_tokens, seconds));
  if (num_draft_tokens == 0) return line + "; no drafts";
  line += fmt::format("; {} drafted, {} accepted ({:.0f} %{}), mean acceptance length {:.2f}",
                      acceptance.num_draft_tokens, acceptance.num_accepted_tokens,
                      100 * acceptance.acceptance_rate(), synthetic ? ", synthetic" : "",
                      acceptance.mean_acceptance_length());
  line += ", per position";
  for (int i = 0; i < num_draft_tokens; ++i) line += fmt::format(" {:.2f}", acceptance.rate_at(i));
  return line;
}

}  // namespace tandem::cli
