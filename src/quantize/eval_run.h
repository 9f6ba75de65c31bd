// tandem eval: measures a candidate, alone or beside the reference it was made from.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "model/pair.h"
#include "quantize/eval_acceptance.h"
#include "quantize/eval_gate.h"
#include "quantize/eval_text.h"

namespace tandem::quantize {

struct EvalOptions {
  int num_draft_tokens = 4;
  int draft_position_offset = 0;  // the candidate's; the reference always has 0
  std::optional<bool> kv_fp8;     // nothing: as the checkpoint asks
  int64_t max_new_tokens = 128;
  GateBounds bounds;
};

struct EvalInputs {
  model::Pair candidate;
  std::optional<model::Pair> reference;
  std::vector<EvalPrompt> prompts;
  std::vector<EvalText> texts;  // empty: the reference's answers (without one, the candidate's)
  const text::Tokenizer* tokenizer = nullptr;
};

// Refused: a candidate and a reference of different vocabularies or layers, prompts that are too
// long, logits that are not finite.
base::Result<EvalResult> evaluate(const ops::Context& context, EvalInputs& inputs,
                                  const EvalOptions& options, const Progress& progress);

}  // namespace tandem::quantize
