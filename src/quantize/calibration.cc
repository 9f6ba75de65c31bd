#include "quantize/calibration.h"

#include <algorithm>

namespace tandem::quantize {
namespace {

constexpr std::string_view kPhase = "calibrating";

base::Result<int64_t> longest_text(const model::Pair& pair,
                                   const std::vector<std::vector<int32_t>>& prompts,
                                   int64_t max_new_tokens) {
  const int64_t limit = pair.target->config().max_position_embeddings;
  int64_t longest = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto length = static_cast<int64_t>(prompts[i].size());
    if (length == 0 || length >= limit)
      return base::invalid(
          "prompt {}: expected 1 to {} tokens (max_position_embeddings less one), got {}", i + 1,
          limit - 1, length);
    longest = std::max(longest, std::min(limit, length + max_new_tokens));
  }
  return longest;
}

base::Status check_run(const speculation::RunOutput& output, size_t prompt,
                       const CalibrationObserver* target_observer,
                       const CalibrationObserver* assistant_observer) {
  for (const CalibrationObserver* observer : {target_observer, assistant_observer})
    if (observer != nullptr) TANDEM_RETURN_IF_ERROR(observer->check_finite());
  if (output.failed)
    return base::invalid("prompt {}: expected finite logits while calibrating, got NaN or infinity",
                         prompt + 1);
  return {};
}

}  // namespace

sampling::SamplingParams default_sampling(const io::Checkpoint& target) {
  const io::GenerationConfig& generation = target.generation_config();
  sampling::SamplingParams params;
  params.temperature = generation.do_sample ? generation.temperature : 0.0;
  params.top_k = generation.top_k;
  params.top_p = generation.top_p;
  params.min_p = generation.min_p;
  params.repetition_penalty = generation.repetition_penalty;
  return params;
}

std::vector<int32_t> end_ids(const io::Checkpoint& target) {
  const std::vector<int32_t>& ids = target.generation_config().eos_token_ids;
  return ids.empty() ? target.config().eos_token_ids : ids;
}

base::Result<CalibrationRun> calibrate(const ops::Context& context, model::Pair& pair,
                                       const std::vector<std::vector<int32_t>>& prompts,
                                       const CalibrationOptions& options,
                                       CalibrationObserver* target_observer,
                                       CalibrationObserver* assistant_observer,
                                       const Progress& progress) {
  speculation::RunnerOptions runner_options;
  TANDEM_ASSIGN_OR_RETURN(runner_options.max_tokens,
                          longest_text(pair, prompts, options.max_new_tokens));
  runner_options.num_draft_tokens = options.num_draft_tokens;
  runner_options.kv_dtype = pair.target->options().activation_dtype();
  speculation::SequenceRunner runner(*pair.target, pair.assistant.get(), runner_options);
  runner.step().set_observers(target_observer, assistant_observer);

  const auto total = static_cast<int64_t>(prompts.size()) * options.max_new_tokens;
  CalibrationRun run;
  for (size_t i = 0; i < prompts.size(); ++i) {
    speculation::RunRequest request;
    request.prompt = prompts[i];
    request.sampling = options.sampling;
    request.max_new_tokens = options.max_new_tokens;
    request.eos_ids = end_ids(*pair.target_checkpoint);
    request.suppress_tokens = pair.target_checkpoint->suppressed_ids();
    request.seed = options.seed + i;
    base::Status reported;
    const auto before = static_cast<int64_t>(i) * options.max_new_tokens;
    const speculation::RunOutput output =
        runner.run(context, request, [&](const speculation::RunOutput& so_far) {
          reported = report_progress(progress, kPhase,
                                     before + static_cast<int64_t>(so_far.tokens.size()), total);
          return reported.has_value();
        });
    TANDEM_RETURN_IF_ERROR(check_run(output, i, target_observer, assistant_observer));
    TANDEM_RETURN_IF_ERROR(std::move(reported));
    std::vector<int32_t> text = prompts[i];
    text.insert(text.end(), output.tokens.begin(), output.tokens.end());
    run.texts.push_back(std::move(text));
    run.prompt_lens.push_back(static_cast<int64_t>(prompts[i].size()));
    run.stats.add(output.stats);
    run.num_generated += static_cast<int64_t>(output.tokens.size());
    run.num_rounds += output.num_rounds;
  }
  TANDEM_RETURN_IF_ERROR(report_progress(progress, kPhase, total, total));
  return run;
}

}  // namespace tandem::quantize
