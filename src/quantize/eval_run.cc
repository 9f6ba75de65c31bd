#include "quantize/eval_run.h"

#include <algorithm>

#include "quantize/eval_modules.h"

namespace tandem::quantize {
namespace {

constexpr size_t kProbePrompts = 32;

base::Status check_comparable(const model::Pair& candidate, const model::Pair& reference) {
  const io::TextConfig& ours = candidate.target->config();
  const io::TextConfig& theirs = reference.target->config();
  const std::string where = reference.target_checkpoint->dir().string();
  const auto check = [&](const char* key, int64_t expected, int64_t got) -> base::Status {
    if (expected == got) return {};
    return base::invalid("--reference: {}: {}: expected {}, as in {}, got {}", where, key, expected,
                         candidate.target_checkpoint->dir().string(), got);
  };
  TANDEM_RETURN_IF_ERROR(check("vocab_size", ours.vocab_size, theirs.vocab_size));
  TANDEM_RETURN_IF_ERROR(check("hidden_size", ours.hidden_size, theirs.hidden_size));
  return check("num_hidden_layers", ours.num_layers(), theirs.num_layers());
}

std::vector<EvalText> texts_of(const std::vector<EvalPrompt>& prompts,
                               const std::vector<std::vector<int32_t>>& answers) {
  std::vector<EvalText> texts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    EvalText text{prompts[i].ids, static_cast<int64_t>(prompts[i].ids.size())};
    text.ids.insert(text.ids.end(), answers[i].begin(), answers[i].end());
    texts.push_back(std::move(text));
  }
  return texts;
}

// The work in order; each step fills its part of the result.
class Evaluation {
 public:
  Evaluation(const ops::Context& context, EvalInputs& inputs, const EvalOptions& options,
             const Progress& progress)
      : context_(context), inputs_(inputs), options_(options), progress_(progress) {
    candidate_.pair = &inputs.candidate;
    candidate_.num_draft_tokens = inputs.candidate.assistant ? options.num_draft_tokens : 0;
    candidate_.draft_position_offset = options.draft_position_offset;
    candidate_.kv_fp8 =
        options.kv_fp8.value_or(inputs.candidate.target_checkpoint->quantization().kv_cache_fp8);
    if (!inputs.reference) return;
    reference_.pair = &*inputs.reference;
    reference_.num_draft_tokens = inputs.reference->assistant ? options.num_draft_tokens : 0;
  }

  base::Result<EvalResult> run() {
    result_.num_draft_tokens = candidate_.num_draft_tokens;
    result_.draft_position_offset = candidate_.draft_position_offset;
    result_.kv_fp8 = candidate_.kv_fp8;
    name_models();
    TANDEM_RETURN_IF_ERROR(answer());
    TANDEM_RETURN_IF_ERROR(probe_offset());
    if (!inputs_.texts.empty()) {
      TANDEM_ASSIGN_OR_RETURN(
          result_.text, score_texts(context_, candidate_, reference_, inputs_.texts, progress_));
    }
    TANDEM_RETURN_IF_ERROR(compare());
    return std::move(result_);
  }

 private:
  void name_models() {
    const auto dir = [](const auto& checkpoint) {
      return checkpoint ? checkpoint->dir().string() : std::string();
    };
    result_.names.target = dir(inputs_.candidate.target_checkpoint);
    result_.names.assistant = dir(inputs_.candidate.assistant_checkpoint);
    if (!inputs_.reference) return;
    result_.names.reference_target = dir(inputs_.reference->target_checkpoint);
    result_.names.reference_assistant = dir(inputs_.reference->assistant_checkpoint);
  }

  // The observed pair is the reference when there is one: its activations are the clean ones.
  base::Status answer() {
    EvalPair& observed = inputs_.reference ? reference_ : candidate_;
    observed.target_observer = &target_observer_;
    observed.assistant_observer = &assistant_observer_;
    PairAnswers ours, theirs;
    if (inputs_.reference) {
      TANDEM_ASSIGN_OR_RETURN(
          theirs, answer_prompts(context_, reference_, inputs_.prompts, options_.max_new_tokens,
                                 inputs_.tokenizer, "answering: reference", progress_));
      result_.reference = std::move(theirs.score);
    }
    TANDEM_ASSIGN_OR_RETURN(
        ours, answer_prompts(context_, candidate_, inputs_.prompts, options_.max_new_tokens,
                             inputs_.tokenizer, "answering: candidate", progress_));
    result_.candidate = std::move(ours.score);
    if (inputs_.texts.empty())
      inputs_.texts = texts_of(inputs_.prompts, inputs_.reference ? theirs.answers : ours.answers);
    return {};
  }

  // Whether drafts would fare better at the other position: asked when they fare badly here.
  base::Status probe_offset() {
    if (candidate_.num_draft_tokens == 0 || !result_.reference) return {};
    const double length = result_.candidate->all.stats.mean_acceptance_length();
    const double ratio = length / result_.reference->all.stats.mean_acceptance_length();
    if (candidate_.draft_position_offset == 0 && ratio >= options_.bounds.min_acceptance_ratio)
      return {};
    std::vector<EvalPrompt> prompts = inputs_.prompts;
    if (prompts.size() > kProbePrompts) prompts.resize(kProbePrompts);
    OffsetProbe probe;
    probe.offset = candidate_.draft_position_offset;
    EvalPair pair = candidate_;
    pair.target_observer = nullptr;
    pair.assistant_observer = nullptr;
    for (const int offset : {probe.offset, 1 - probe.offset}) {
      pair.draft_position_offset = offset;
      TANDEM_ASSIGN_OR_RETURN(
          const PairAnswers answers,
          answer_prompts(context_, pair, prompts, options_.max_new_tokens, nullptr,
                         "answering: other draft positions", progress_));
      (offset == probe.offset ? probe.length : probe.other_length) =
          answers.score.all.stats.mean_acceptance_length();
    }
    result_.offset = probe;
    return {};
  }

  base::Status compare() {
    const bool with_reference = inputs_.reference.has_value();
    const model::ModelOptions& options = inputs_.candidate.target->options();
    TANDEM_ASSIGN_OR_RETURN(
        result_.modules,
        compare_modules(context_,
                        {inputs_.candidate.target_checkpoint.get(),
                         with_reference ? inputs_.reference->target_checkpoint.get() : nullptr,
                         &target_observer_, false},
                        options, progress_));
    result_.kv = kv_scores(*inputs_.candidate.target_checkpoint, target_observer_);
    if (!inputs_.candidate.assistant) return {};
    TANDEM_ASSIGN_OR_RETURN(
        std::vector<ModuleScore> assistant,
        compare_modules(context_,
                        {inputs_.candidate.assistant_checkpoint.get(),
                         with_reference ? inputs_.reference->assistant_checkpoint.get() : nullptr,
                         &assistant_observer_, true},
                        options, progress_));
    for (ModuleScore& score : assistant) result_.modules.push_back(std::move(score));
    return {};
  }

  const ops::Context& context_;
  EvalInputs& inputs_;
  const EvalOptions& options_;
  const Progress& progress_;
  EvalPair candidate_, reference_;
  EvalObserver target_observer_, assistant_observer_;
  EvalResult result_;
};

}  // namespace

base::Result<EvalResult> evaluate(const ops::Context& context, EvalInputs& inputs,
                                  const EvalOptions& options, const Progress& progress) {
  if (inputs.reference)
    TANDEM_RETURN_IF_ERROR(check_comparable(inputs.candidate, *inputs.reference));
  return Evaluation(context, inputs, options, progress).run();
}

}  // namespace tandem::quantize
