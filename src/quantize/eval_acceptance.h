// What a pair answers, greedily, and how many drafts its target accepts: task by task.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/kv_format.h"
#include "model/pair.h"
#include "quantize/eval_result.h"
#include "quantize/progress.h"
#include "text/tokenizer.h"

namespace tandem::quantize {

struct EvalPrompt {
  std::string task;  // empty: "all"
  std::vector<int32_t> ids;
  std::optional<std::string> answer;  // the only right one
};

struct EvalPair {
  model::Pair* pair = nullptr;
  int num_draft_tokens = 0;
  int draft_position_offset = 0;
  bool kv_fp8 = false;
  model::Observer* target_observer = nullptr;
  model::Observer* assistant_observer = nullptr;
};

struct PairAnswers {
  PairScore score;
  std::vector<std::vector<int32_t>> answers;  // per prompt
};

// What is left of an answer's text without its reasoning and the mark that ends a turn.
std::string_view final_answer(std::string_view text);

// Scales for a store of this pair's KV: the target's own; empty for a BF16 store.
model::KvScaleLists kv_scale_lists(const io::Checkpoint& target, bool kv_fp8);

// `tokenizer` may be null when no prompt has an answer. `phase` names the work for progress.
base::Result<PairAnswers> answer_prompts(const ops::Context& context, const EvalPair& eval,
                                         const std::vector<EvalPrompt>& prompts,
                                         int64_t max_new_tokens, const text::Tokenizer* tokenizer,
                                         std::string_view phase, const Progress& progress);

}  // namespace tandem::quantize
