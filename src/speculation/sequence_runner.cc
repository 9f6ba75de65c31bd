#include "speculation/sequence_runner.h"

#include <algorithm>

namespace tandem::speculation {
namespace {

SpeculativeStepOptions step_options(const RunnerOptions& options) {
  SpeculativeStepOptions step;
  step.draft_position_offset = options.draft_position_offset;
  step.draws_drafts = options.draws_drafts;
  return step;
}

}  // namespace

SequenceRunner::SequenceRunner(model::TargetModel& target, model::Drafter* drafter,
                               const RunnerOptions& options)
    : target_(target),
      options_(options),
      sequence_(target.config(), options.max_tokens, kMaxDraftTokens, options.kv_dtype,
                options.k_scales, options.v_scales),
      step_(target, drafter, sequence_.kv(), step_options(options)) {}

SpecSequenceResult SequenceRunner::run_step(const ops::Context& context,
                                            std::span<const int32_t> tokens, int64_t start_position,
                                            bool samples, int num_draft_tokens,
                                            sampling::Sampler& sampler,
                                            base::TokenConstraint* constraint) {
  SpecBatch batch;
  batch.ring = sequence_.ring();
  batch.pages = sequence_.pages();
  SpecSequence entry;
  entry.tokens = tokens;
  entry.start_position = start_position;
  entry.samples = samples;
  entry.num_draft_tokens = num_draft_tokens;
  entry.sampler = &sampler;
  entry.constraint = constraint;
  batch.sequences.push_back(entry);
  return std::move(step_.run(context, batch).sequences[0]);
}

RunOutput SequenceRunner::run(const ops::Context& context, const RunRequest& request,
                              const Progress& progress) {
  const auto prompt_len = static_cast<int64_t>(request.prompt.size());
  TANDEM_CHECK_GT(prompt_len, 0);
  TANDEM_CHECK_LE(prompt_len, options_.max_tokens);
  sampling::Sampler sampler(request.sampling, target_.config().vocab_size, request.prompt,
                            request.suppress_tokens, request.eos_ids, request.seed);
  const int64_t budget = std::min(request.max_new_tokens, options_.max_tokens - prompt_len);
  RunOutput output;
  SpecSequenceResult result;
  const int64_t chunk = target_.options().max_rows;
  for (int64_t begin = 0; begin < prompt_len; begin += chunk) {
    const int64_t count = std::min(chunk, prompt_len - begin);
    const auto tokens =
        request.prompt.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    result = run_step(context, tokens, begin, begin + count == prompt_len, 0, sampler,
                      request.constraint);
  }
  while (true) {
    for (const sampling::TokenChoice& choice : result.tokens) {
      output.tokens.push_back(choice.token);
      const bool eos = std::ranges::find(request.eos_ids, choice.token) != request.eos_ids.end();
      if (eos || static_cast<int64_t>(output.tokens.size()) >= budget) return output;
    }
    if (request.constraint != nullptr && request.constraint->finished()) return output;
    output.failed = result.failed;
    if (output.failed || (progress && !progress(output))) return output;
    const auto produced = static_cast<int64_t>(output.tokens.size());
    const int64_t newest_position = prompt_len + produced - 1;
    // A round may emit K + 1 tokens: no more drafts than tokens still wanted.
    const auto drafts = static_cast<int>(std::min<int64_t>(
        step_.has_assistant() ? options_.num_draft_tokens : 0, budget - produced - 1));
    const int32_t newest[] = {output.tokens.back()};
    result = run_step(context, newest, newest_position, true, drafts, sampler, request.constraint);
    output.stats.add_round(result.num_drafted, result.num_accepted);
    ++output.num_rounds;
  }
}

}  // namespace tandem::speculation
