#include "server/generation.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "sampling/rng.h"
#include "server/json_text.h"

namespace tandem::server {
namespace {

// Steps whose tokens a client has not read; then it is cut off.
constexpr size_t kMaxUnreadEvents = 16384;

AnswerOptions answer_options(const GenerationJob& job, size_t index) {
  const GenerationParams& params = job.params;
  return {.stop = params.stop,
          .include_stop = params.include_stop,
          .min_tokens = params.sampling.min_tokens,
          .skip_special_tokens = params.skip_special_tokens,
          .chat = job.chat,
          .ignore_eos = params.sampling.ignore_eos,
          .include_reasoning = job.include_reasoning,
          .call_id_prefix = fmt::format("{}{}_{}_", job.call_id_prefix, job.request_id, index),
          .tools = job.tools};
}

// Whether what the request asks for can leave nothing to choose from.
bool may_leave_nothing(const GenerationParams& params) {
  const sampling::SamplingParams& sampling = params.sampling;
  return !sampling.allowed_token_ids.empty() || params.grammar || params.thinking_budget ||
         (sampling.min_tokens > 0 && !sampling.stop_token_ids.empty());
}

const char* reason_of(const engine::TokenEvent& event) {
  switch (event.finish->reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kCancelled:
      return "abort";
    case engine::FinishReason::kError:
      return "error";
  }
  return "error";
}

// Of a request for a prompt alone: neither the one token that was made nor that it is an end.
void hide_answer(engine::TokenEvent& event) {
  event.tokens.clear();
  if (!event.finish || event.finish->reason != engine::FinishReason::kStop) return;
  event.finish->reason = engine::FinishReason::kLength;
  event.finish->stop_token.reset();
}

}  // namespace

Generation::Generation(const ServerParts& parts, GenerationJob job,
                       std::vector<Admission> admissions)
    : parts_(parts), job_(std::move(job)), admissions_(std::move(admissions)) {
  for (size_t i = 0; i < admissions_.size(); ++i) {
    const auto& prompt = job_.prompts[i / static_cast<size_t>(job_.params.n)];
    const int64_t room = parts_.model.max_request_tokens - static_cast<int64_t>(prompt.size());
    choices_.push_back({.answer = Answer(parts_.model.tokenizer, answer_options(job_, i), prompt),
                        .max_tokens = std::min(job_.params.max_tokens.value_or(room), room)});
    choices_.back().unsent.index = static_cast<int64_t>(i);
  }
}

Generation::~Generation() {
  cancel();
}

void Generation::start(std::function<void()> wake) {
  inbox_->wake = std::move(wake);
  inbox_->stopped.assign(choices_.size(), 0);
  parts_.metrics.add_request(job_.params.n);
  for (size_t i = 0; i < choices_.size(); ++i) submit(i, std::move(admissions_[i]));
}

void Generation::submit(size_t index, Admission admission) {
  const auto n = static_cast<size_t>(job_.params.n);
  engine::EngineRequest request{.id = 0,
                                .prompt_ids = job_.prompts[index / n],
                                .sampling = job_.params.sampling,
                                .max_tokens = choices_[index].max_tokens,
                                .num_draft_tokens = job_.params.num_draft_tokens,
                                .priority = job_.params.priority,
                                .cache_salt = job_.params.cache_salt};
  if (job_.params.grammar) request.constraint = job_.params.grammar->start();
  if (const auto budget = job_.params.thinking_budget)
    request.constraint = text::limit_thoughts(std::move(request.constraint),
                                              *text::thought_marks(parts_.model.tokenizer), *budget,
                                              job_.params.in_thought, parts_.model.vocab_size);
  // The first choice is the one that a request for a single one would get.
  if (request.sampling.seed && index % n > 0)
    request.sampling.seed = sampling::derive_seed(*request.sampling.seed, index % n);
  auto place = std::make_shared<Admission>(std::move(admission));
  choices_[index].place = place;
  choices_[index].engine_id = parts_.engine.submit(
      std::move(request), std::move(place),
      [inbox = inbox_, index, max_tokens = choices_[index].max_tokens, &metrics = parts_.metrics,
       began = Clock::now(), is_first = true](base::Result<engine::TokenEvent> event) mutable {
        const std::lock_guard lock(inbox->mutex);
        if (event && is_first && !event->tokens.empty()) {
          is_first = false;
          metrics.add_first_token(std::chrono::duration<double>(Clock::now() - began).count());
        }
        if (event && event->finish)
          metrics.add_finished({.reason = inbox->stopped[index] ? "stop" : reason_of(*event),
                                .max_tokens = max_tokens,
                                .stats = event->finish->stats});
        if (!inbox->wake) return;  // nobody listens any more
        inbox->arrivals.push_back({index, std::move(event), Clock::now()});
        inbox->wake();
      });
}

void Generation::cancel() {
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->wake = nullptr;
    inbox_->arrivals.clear();
  }
  for (Choice& choice : choices_) {
    if (choice.released || choice.engine_id == 0) continue;
    choice.released = true;
    parts_.engine.cancel(choice.engine_id);
  }
  over_ = true;
  log_end("aborted by the client");
}

void Generation::log_end(std::string_view how) {
  if (!parts_.model.log_requests || std::exchange(logged_, true)) return;
  const Usage used = usage();
  const double seconds = std::chrono::duration<double>(Clock::now() - started_).count();
  const std::string preempted =
      num_preemptions_ == 0 ? "" : fmt::format(", preempted {} times", num_preemptions_);
  base::log_info("request {}: {}, {} prompt tokens ({} cached), {} output tokens, {:.3f} s{}",
                 job_.request_id, how, used.num_prompt_tokens, used.num_cached_tokens,
                 used.num_output_tokens, seconds, preempted);
}

ReplyPart Generation::poll() {
  ReplyPart part;
  if (over_) {
    part.done = true;
    return part;
  }
  std::vector<Arrival> arrivals;
  {
    const std::lock_guard lock(inbox_->mutex);
    arrivals.swap(inbox_->arrivals);
  }
  if (job_.params.stream && !head_sent_ && (arrivals.empty() || arrivals.front().event)) {
    add_head(part, 200);
    for (size_t i = 0; i < choices_.size(); ++i)
      part.data += job_.format->begin_choice(static_cast<int64_t>(i), usage());
  }
  if (job_.params.stream && arrivals.size() > kMaxUnreadEvents)
    fail({.status = 503, .message = "stream: the client reads too slowly"}, part);
  for (Arrival& arrival : arrivals) {
    if (over_) break;
    take(arrival, part);
  }
  if (!over_ && num_ended_ == choices_.size()) finish_reply(part);
  part.done = over_;
  return part;
}

void Generation::take(Arrival& arrival, ReplyPart& part) {
  Choice& choice = choices_[arrival.choice];
  if (!arrival.event) {
    choice.released = true;
    return fail(from_error(arrival.event.error()), part);
  }
  engine::TokenEvent& event = *arrival.event;
  if (event.finish) choice.released = true;
  if (choice.ended) return;
  acceptance_.add_round(event.num_drafted, event.num_accepted);
  if (choice.last_event != Clock::time_point() && !event.tokens.empty())
    parts_.metrics.add_inter_token(
        std::chrono::duration<double>(arrival.time - choice.last_event).count(),
        static_cast<int64_t>(event.tokens.size()));
  choice.last_event = arrival.time;
  ChoicePart delta{.index = static_cast<int64_t>(arrival.choice),
                   .num_drafted = event.num_drafted,
                   .num_accepted = event.num_accepted};
  delta.prompt_scores = std::move(event.prompt_scores);
  for (const sampling::TokenScore& score : delta.prompt_scores)
    if (score.token == sampling::kNotFinite)
      return fail({500, "the model gave no usable logits for a token of the prompt"}, part);
  if (!event.tokens.empty()) choice.num_cached_tokens = event.num_cached_tokens;
  if (job_.params.only_prompt) hide_answer(event);
  delta.pieces = choice.answer.push(event);
  const bool stopped = choice.answer.stopped();
  if (event.finish && !stopped && event.finish->reason == engine::FinishReason::kError) {
    const int status = may_leave_nothing(job_.params) ? 400 : 500;
    return fail({.status = status, .message = event.finish->error}, part);
  }
  if (event.finish && !stopped && event.finish->reason == engine::FinishReason::kCancelled) {
    return fail({.status = 503, .message = "the server is shutting down"}, part);
  }
  if (event.finish || stopped) end_choice(choice, delta, event.finish);
  delta.tokens = choice.answer.take_tokens();
  show(choice, delta, part);
}

// Adds to what the client has not been sent; of a stream, sends that when it is enough.
void Generation::show(Choice& choice, ChoicePart& delta, ReplyPart& part) {
  ChoicePart& unsent = choice.unsent;
  std::ranges::move(delta.pieces, std::back_inserter(unsent.pieces));
  std::ranges::move(delta.tokens, std::back_inserter(unsent.tokens));
  std::ranges::move(delta.prompt_scores, std::back_inserter(unsent.prompt_scores));
  unsent.num_drafted += delta.num_drafted;
  unsent.num_accepted += delta.num_accepted;
  if (!job_.params.stream) return;
  const auto num_tokens = static_cast<int64_t>(unsent.tokens.size());
  const bool enough =
      unsent.finish_reason || !choice.has_chunks || num_tokens >= job_.params.stream_interval;
  const bool shows = !unsent.pieces.empty() || unsent.finish_reason ||
                     job_.params.sampling.num_logprobs >= 0 || job_.params.return_token_ids ||
                     job_.params.return_draft_info;
  if (!enough || !shows) return;
  choice.has_chunks = true;
  part.data += job_.format->chunk(unsent, usage());
  unsent = {.index = unsent.index};
}

void Generation::end_choice(Choice& choice, ChoicePart& delta,
                            const std::optional<engine::Finish>& finish) {
  for (AnswerPiece& piece : choice.answer.finish()) delta.pieces.push_back(std::move(piece));
  ChoicePart& end = choice.unsent;
  const bool stopped = choice.answer.stopped();
  const bool length = !stopped && finish && finish->reason == engine::FinishReason::kLength;
  end.finish_reason = length ? "length" : choice.answer.has_tool_call() ? "tool_calls" : "stop";
  end.stop_text = choice.answer.stop_text();
  if (!stopped && finish && finish->stop_token) {
    const auto& ids = job_.params.sampling.stop_token_ids;
    if (std::ranges::find(ids, *finish->stop_token) != ids.end())
      end.stop_token = finish->stop_token;
  }
  choice.ended = true;
  ++num_ended_;
  if (finish) num_preemptions_ += finish->stats.num_preemptions;
  if (finish) return;
  // A stop string: the engine learns of it here.
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->stopped[static_cast<size_t>(end.index)] = 1;
  }
  parts_.engine.cancel(choice.engine_id);
  // The client may ask again at once, before the engine's next step.
  if (const auto place = choice.place.lock()) *place = Admission();
}

void Generation::fail(const ApiError& error, ReplyPart& part) {
  if (head_sent_) {
    part.data += job_.format->stream_error(error);
  } else {
    const Reply reply = job_.format->error(error);
    part.head = reply.head;
    part.data = reply.body;
    head_sent_ = true;
  }
  log_end(fmt::format("failed with {}", error.status));
  cancel();
}

void Generation::finish_reply(ReplyPart& part) {
  if (job_.params.stream) {
    part.data += job_.format->end_stream(usage(), shown_acceptance());
  } else {
    std::vector<ChoicePart> wholes;
    for (Choice& choice : choices_) wholes.push_back(std::move(choice.unsent));
    add_head(part, 200);
    part.data = job_.format->whole(wholes, usage(), shown_acceptance());
  }
  over_ = true;
  log_end("finished");
}

void Generation::add_head(ReplyPart& part, int status) {
  part.head = ReplyHead{.status = status};
  if (job_.params.stream) {
    part.head->content_type = "text/event-stream; charset=utf-8";
    part.head->headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  }
  if (job_.show_request_id) part.head->headers.emplace_back("X-Request-Id", job_.request_id);
  head_sent_ = true;
}

Usage Generation::usage() const {
  Usage usage;
  for (const auto& prompt : job_.prompts)
    usage.num_prompt_tokens += static_cast<int64_t>(prompt.size());
  // The prompt of several choices counts once.
  for (size_t i = 0; i < choices_.size(); i += static_cast<size_t>(job_.params.n))
    usage.num_cached_tokens += choices_[i].num_cached_tokens;
  for (const Choice& choice : choices_) {
    usage.num_output_tokens += choice.answer.num_tokens();
    usage.num_reasoning_tokens += choice.answer.num_reasoning_tokens();
  }
  return usage;
}

const speculation::AcceptanceStats* Generation::shown_acceptance() const {
  return parts_.model.spec_metrics ? &acceptance_ : nullptr;
}

}  // namespace tandem::server
