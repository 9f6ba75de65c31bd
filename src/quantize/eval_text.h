// Teacher-forced scores of texts: perplexity of a candidate, and how far its distributions are from
// a reference's.
#pragma once

#include <span>
#include <vector>

#include "base/status.h"
#include "quantize/eval_acceptance.h"

namespace tandem::quantize {

struct EvalText {
  std::vector<int32_t> ids;
  int64_t first_scored = 1;  // tokens before it are given, not judged
};

// One row of logits turned into what is summed. Pure; tests check it against closed forms.
struct RowScore {
  double nll = 0;            // -log p(next) of the candidate
  double reference_nll = 0;  // 0 without a reference
  double kl = 0;             // KL(reference || candidate), never below 0
  bool same_choice = true;
  bool finite = true;            // false: NaN or infinity among the candidate's logits,
  bool reference_finite = true;  // or the reference's; nothing above means anything then
};
RowScore score_row(std::span<const float> logits, std::span<const float> reference_logits,
                   int32_t next);

// The smallest value that at least `share` of the values do not exceed; 0 of none.
double quantile(std::vector<double> values, double share);

// `reference` may have no pair. Texts of one token are passed over.
base::Result<TextScore> score_texts(const ops::Context& context, const EvalPair& candidate,
                                    const EvalPair& reference, const std::vector<EvalText>& texts,
                                    const Progress& progress);

}  // namespace tandem::quantize
