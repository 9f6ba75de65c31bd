#include "cli/generation.h"

#include "cli/interrupt.h"

namespace tandem::cli {
namespace {

class Generation {
 public:
  Generation(engine::Runtime& runtime, const text::Tokenizer* tokenizer,
             const GenerationCallbacks& callbacks)
      : engine_(runtime.engine()), tokenizer_(tokenizer), callbacks_(callbacks) {}

  base::Status add(GenerationRequest request) {
    states_.push_back(
        {.answer = Answer(tokenizer_, std::move(request.stop), request.include_stop_str_in_output,
                          request.sampling.min_tokens, request.prompt_ids)});
    engine::EngineRequest asked{.id = states_.size() - 1,
                                .prompt_ids = std::move(request.prompt_ids),
                                .sampling = std::move(request.sampling),
                                .max_tokens = request.max_tokens,
                                .num_draft_tokens = {}};
    if (request.grammar) asked.constraint = request.grammar->start();
    base::Status status = engine_.add_request(std::move(asked));
    if (!status) status.error().message = request.where + ": " + status.error().message;
    return status;
  }

  void run() {
    while (engine_.has_work()) {
      if (InterruptGuard::interrupted()) return cancel_all();
      for (const engine::TokenEvent& event : engine_.step()) take(event);
      if (callbacks_.on_step) callbacks_.on_step();
    }
  }

  // After a refusal: the engine outlives this set of requests.
  void cancel_all() {
    for (size_t i = 0; i < states_.size(); ++i) {
      if (states_[i].finish) continue;
      auto event = engine_.cancel(i);
      if (event) finish(i, std::move(*event->finish), {});
    }
  }

  std::vector<GenerationState> take_states() { return std::move(states_); }

 private:
  void take(const engine::TokenEvent& event) {
    GenerationState& state = states_[event.id];
    std::vector<AnswerText> texts = state.answer.push(event);
    std::optional<engine::Finish> done = event.finish;
    if (state.answer.stopped() && !done) done = std::move(engine_.cancel(event.id)->finish);
    if (done)
      finish(event.id, std::move(*done), std::move(texts));
    else
      callbacks_.on_text(event.id, state, texts);
  }

  void finish(size_t index, engine::Finish done, std::vector<AnswerText> texts) {
    GenerationState& state = states_[index];
    if (state.answer.stopped()) done.reason = engine::FinishReason::kStop;
    state.finish = std::move(done);
    for (AnswerText& text : state.answer.finish()) texts.push_back(std::move(text));
    callbacks_.on_text(index, state, texts);
  }

  engine::Engine& engine_;
  const text::Tokenizer* tokenizer_;
  const GenerationCallbacks& callbacks_;
  std::vector<GenerationState> states_;
};

}  // namespace

base::Result<std::vector<GenerationState>> generate(engine::Runtime& runtime,
                                                    const text::Tokenizer* tokenizer,
                                                    std::vector<GenerationRequest> requests,
                                                    const GenerationCallbacks& callbacks) {
  Generation generation(runtime, tokenizer, callbacks);
  for (GenerationRequest& request : requests) {
    if (const base::Status status = generation.add(std::move(request)); !status) {
      generation.cancel_all();
      return tl::unexpected<base::Error>(status.error());
    }
  }
  generation.run();
  return generation.take_states();
}

}  // namespace tandem::cli
