// A set of requests through the engine: adds them, steps until all are done, hands out what came.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/answer.h"
#include "engine/runtime.h"
#include "text/grammar/compiled_grammar.h"

namespace tandem::cli {

struct GenerationRequest {
  std::string where;  // for messages
  std::vector<int32_t> prompt_ids;
  sampling::SamplingParams sampling;
  int64_t max_tokens = 0;
  std::vector<std::string> stop;
  bool include_stop_str_in_output = false;
  std::shared_ptr<const text::CompiledGrammar> grammar = nullptr;  // null: any answer
};

// What a request has become; `finish` when it is done.
struct GenerationState {
  Answer answer;
  std::optional<engine::Finish> finish = std::nullopt;
};

struct GenerationCallbacks {
  // New text of request `index`; its state may have `finish`.
  std::function<void(size_t index, const GenerationState& state, std::span<const AnswerText> texts)>
      on_text;
  std::function<void()> on_step = {};
};

// Every request is added before the first step, so a refusal costs no work. Ctrl-C (an
// InterruptGuard must live) cancels what is not done and is not an error here: those states have
// finish reason kCancelled.
base::Result<std::vector<GenerationState>> generate(engine::Runtime& runtime,
                                                    const text::Tokenizer* tokenizer,
                                                    std::vector<GenerationRequest> requests,
                                                    const GenerationCallbacks& callbacks);

}  // namespace tandem::cli
