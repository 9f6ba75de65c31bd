#include "server/format.h"

#include <nlohmann/json.hpp>

#include "server/json_text.h"

namespace tandem::server {
namespace {

using nlohmann::ordered_json;

ordered_json usage_json(const Usage& usage, const ReplyExtras& extras) {
  ordered_json json = {{"prompt_tokens", usage.num_prompt_tokens},
                       {"total_tokens", usage.num_prompt_tokens + usage.num_output_tokens},
                       {"completion_tokens", usage.num_output_tokens}};
  if (extras.prompt_details)
    json["prompt_tokens_details"] = {{"cached_tokens", usage.num_cached_tokens}};
  return json;
}

ordered_json speculation_json(const speculation::AcceptanceStats& stats) {
  ordered_json per_position = ordered_json::array();
  for (size_t i = 0; i < stats.proposed_per_pos.size() && stats.proposed_per_pos[i] > 0; ++i)
    per_position.push_back(stats.accepted_per_pos[i]);
  // Rounds of which exactly 0, 1, ... drafts held: per_position counts those with more than i.
  ordered_json histogram = ordered_json::array();
  int64_t more = stats.num_drafts;
  for (size_t i = 0; i <= per_position.size(); ++i) {
    const int64_t next = i < per_position.size() ? stats.accepted_per_pos[i] : 0;
    histogram.push_back(more - next);
    more = next;
  }
  return {{"num_spec_steps", stats.num_drafts},
          {"num_draft_tokens", stats.num_draft_tokens},
          {"num_accepted_tokens", stats.num_accepted_tokens},
          {"mean_acceptance_length", stats.mean_acceptance_length()},
          {"draft_acceptance_rate", stats.acceptance_rate()},
          {"accepted_per_position", per_position},
          {"acceptance_histogram", histogram}};
}

// The text of one kind, cut where drafted text and the target's own meet.
ordered_json draft_runs(const ChoicePart& part, text::OutputEvent::Kind kind) {
  ordered_json runs = ordered_json::array();
  for (const AnswerPiece& piece : part.pieces) {
    if (piece.kind != kind || piece.text.empty()) continue;
    if (!runs.empty() && runs.back()["drafted"] == piece.drafted)
      runs.back()["text"].get_ref<std::string&>() += piece.text;
    else
      runs.push_back({{"text", piece.text}, {"drafted", piece.drafted}});
  }
  return runs;
}

ordered_json draft_info(const ChoicePart& part) {
  ordered_json info = {{"num_tokens", part.tokens.size()},
                       {"num_drafted", part.num_drafted},
                       {"num_accepted", part.num_accepted}};
  info["reasoning"] = draft_runs(part, text::OutputEvent::Kind::kReasoning);
  info["content"] = draft_runs(part, text::OutputEvent::Kind::kContent);
  return info;
}

}  // namespace

ordered_json OpenAiFormat::envelope(bool chunk) const {
  return {{"id", names_.id},
          {"object", object_name(chunk)},
          {"created", names_.created},
          {"model", names_.model}};
}

std::string OpenAiFormat::end_stream(const Usage& usage,
                                     const speculation::AcceptanceStats* speculation) {
  if (!extras_.usage_chunk) return kSseDone;
  ordered_json reply = envelope(true);
  reply["choices"] = ordered_json::array();
  reply["usage"] = usage_json(usage, extras_);
  if (speculation != nullptr)
    reply["metrics"] = {{"speculative_decoding", speculation_json(*speculation)}};
  return sse_event(reply) + kSseDone;
}

std::string OpenAiFormat::stream_error(const ApiError& error) {
  return "data: " + error_json(error) + "\n\n";
}

std::string OpenAiFormat::choice_event(ordered_json choice, const Usage& usage) const {
  ordered_json reply = envelope(true);
  reply["choices"] = ordered_json::array({std::move(choice)});
  if (extras_.usage_in_chunks) reply["usage"] = usage_json(usage, extras_);
  return sse_event(reply);
}

ordered_json OpenAiFormat::prompt_logprobs_json(const ChoicePart& part) const {
  ordered_json result = ordered_json::array({nullptr});
  for (const sampling::TokenScore& score : part.prompt_scores) {
    ordered_json entries = ordered_json::object();
    const auto add = [&](int32_t token, float logprob, int64_t rank) {
      entries[std::to_string(token)] = {{"logprob", logprob},
                                        {"rank", rank},
                                        {"decoded_token", token_text(tokenizer_, token).text}};
    };
    add(score.token, score.logprob, score.rank);
    for (size_t i = 0; i < score.top.size(); ++i)
      add(score.top[i].token, score.top[i].logprob, static_cast<int64_t>(i) + 1);
    result.push_back(std::move(entries));
  }
  return result;
}

std::string OpenAiFormat::whole(const std::vector<ChoicePart>& choices, const Usage& usage,
                                const speculation::AcceptanceStats* speculation) {
  ordered_json reply = envelope(false);
  reply["choices"] = ordered_json::array();
  for (const ChoicePart& part : choices) reply["choices"].push_back(choice_json(part));
  add_fields(choices, reply);
  reply["usage"] = usage_json(usage, extras_);
  if (speculation != nullptr)
    reply["metrics"] = {{"speculative_decoding", speculation_json(*speculation)}};
  return json_text(reply);
}

std::string OpenAiFormat::token_name(int32_t id) const {
  return extras_.tokens_as_ids ? fmt::format("token_id:{}", id) : token_text(tokenizer_, id).text;
}

void OpenAiFormat::add_end(ordered_json& choice, const ChoicePart& part) const {
  choice["finish_reason"] = part.finish_reason ? ordered_json(*part.finish_reason) : nullptr;
  choice["stop_reason"] = nullptr;
  if (part.stop_text) choice["stop_reason"] = *part.stop_text;
  if (part.stop_token) choice["stop_reason"] = *part.stop_token;
  if (extras_.draft_info) choice["draft_info"] = draft_info(part);
  if (!extras_.token_ids) return;
  choice["token_ids"] = ordered_json::array();
  for (const AnswerToken& token : part.tokens) choice["token_ids"].push_back(token.choice.token);
}

}  // namespace tandem::server
