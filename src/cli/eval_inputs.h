// What `tandem eval` reads: prompts with their tasks and right answers, and text to score.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/prompt_encoder.h"
#include "quantize/eval_acceptance.h"
#include "quantize/eval_text.h"

namespace tandem::cli {

// A file of prompts (prompts.h); .jsonl entries may also have "kind" (the task's name) and "answer"
// (the only right one). An empty path: Tandem's own calibration prompts, without answers. limit 0:
// all.
base::Result<std::vector<quantize::EvalPrompt>> read_eval_prompts(const std::filesystem::path& path,
                                                                  int64_t limit,
                                                                  const PromptEncoder& encoder);

// A text file in pieces of at most max_tokens, each behind the tokenizer's <bos>.
base::Result<std::vector<quantize::EvalText>> read_eval_text(const std::filesystem::path& path,
                                                             int64_t max_tokens,
                                                             const text::Tokenizer& tokenizer);

}  // namespace tandem::cli
