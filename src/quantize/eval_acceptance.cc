#include "quantize/eval_acceptance.h"

#include <algorithm>
#include <map>

#include "quantize/calibration.h"
#include "speculation/sequence_runner.h"

namespace tandem::quantize {
namespace {

base::Result<int64_t> longest_sequence(const model::Pair& pair,
                                       const std::vector<EvalPrompt>& prompts,
                                       int64_t max_new_tokens) {
  const int64_t limit = pair.target->config().max_position_embeddings;
  int64_t longest = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<int64_t>(prompts[i].ids.size());
    if (length == 0 || length >= limit)
      return base::invalid(
          "prompt {}: expected 1 to {} tokens (max_position_embeddings less one), got {}", i + 1,
          limit - 1, length);
    longest = std::max(longest, std::min(limit, length + max_new_tokens));
  }
  return longest;
}

speculation::RunnerOptions runner_options(const EvalPair& eval, int64_t max_tokens) {
  speculation::RunnerOptions options;
  options.max_tokens = max_tokens;
  options.num_draft_tokens = eval.num_draft_tokens;
  options.draft_position_offset = eval.draft_position_offset;
  options.kv_dtype =
      eval.kv_fp8 ? core::DType::kF8E4M3 : eval.pair->target->options().activation_dtype();
  model::KvScaleLists scales = kv_scale_lists(*eval.pair->target_checkpoint, eval.kv_fp8);
  options.k_scales = std::move(scales.k);
  options.v_scales = std::move(scales.v);
  return options;
}

// The token that ends an answer is no part of its text, be it one of the special ones or not.
std::span<const int32_t> without_end(std::span<const int32_t> tokens,
                                     std::span<const int32_t> ends) {
  const bool ended = !tokens.empty() && std::ranges::find(ends, tokens.back()) != ends.end();
  return tokens.first(tokens.size() - (ended ? 1 : 0));
}

TaskScore score_of(const EvalPrompt& prompt, const speculation::RunOutput& output,
                   std::span<const int32_t> ends, const text::Tokenizer* tokenizer) {
  TaskScore score;
  score.task = prompt.task;
  score.num_prompts = 1;
  score.num_tokens = static_cast<int64_t>(output.tokens.size());
  score.stats = output.stats;
  if (prompt.answer && tokenizer != nullptr) {
    const std::string text = tokenizer->decode(without_end(output.tokens, ends),
                                               /*skip_special_tokens=*/false);
    score.num_scored = 1;
    score.num_exact = final_answer(text) == *prompt.answer ? 1 : 0;
  }
  return score;
}

}  // namespace

std::string_view final_answer(std::string_view text) {
  constexpr std::string_view kReasoningBegin = "<|channel>";
  constexpr std::string_view kReasoningEnd = "<channel|>";
  constexpr std::string_view kTurnEnd = "<turn|>";
  if (text.starts_with(kReasoningBegin)) {
    const size_t end = text.find(kReasoningEnd);
    text = end == std::string_view::npos ? std::string_view()
                                         : text.substr(end + kReasoningEnd.size());
  }
  if (text.ends_with(kTurnEnd)) text.remove_suffix(kTurnEnd.size());
  return text;
}

model::KvScaleLists kv_scale_lists(const io::Checkpoint& target, bool kv_fp8) {
  return kv_fp8 ? model::stored_kv_scales(target) : model::KvScaleLists();
}

base::Result<PairAnswers> answer_prompts(const ops::Context& context, const EvalPair& eval,
                                         const std::vector<EvalPrompt>& prompts,
                                         int64_t max_new_tokens, const text::Tokenizer* tokenizer,
                                         std::string_view phase, const Progress& progress) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t max_tokens,
                          longest_sequence(*eval.pair, prompts, max_new_tokens));
  speculation::SequenceRunner runner(*eval.pair->target, eval.pair->assistant.get(),
                                     runner_options(eval, max_tokens));
  runner.step().set_observers(eval.target_observer, eval.assistant_observer);
  PairAnswers result;
  std::map<std::string, TaskScore> tasks;
  const auto total = static_cast<int64_t>(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    TANDEM_RETURN_IF_ERROR(report_progress(progress, phase, static_cast<int64_t>(i), total));
    speculation::RunRequest request;
    request.prompt = prompts[i].ids;
    request.sampling.temperature = 0;
    request.max_new_tokens = max_new_tokens;
    request.eos_ids = end_ids(*eval.pair->target_checkpoint);
    request.suppress_tokens = eval.pair->target_checkpoint->suppressed_ids();
    speculation::RunOutput output = runner.run(context, request);
    if (output.failed)
      return base::invalid("{}: prompt {}: expected finite logits, got NaN or infinity",
                           eval.pair->target_checkpoint->dir().string(), i + 1);
    const TaskScore score = score_of(prompts[i], output, request.eos_ids, tokenizer);
    TaskScore& task = tasks[score.task];
    task.task = score.task;
    task.add(score);
    result.score.all.add(score);
    result.answers.push_back(std::move(output.tokens));
  }
  for (auto& [name, task] : tasks) result.score.tasks.push_back(std::move(task));
  TANDEM_RETURN_IF_ERROR(report_progress(progress, phase, total, total));
  return result;
}

}  // namespace tandem::quantize
