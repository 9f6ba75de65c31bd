#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "sampling/rng.h"

namespace tandem::engine {
namespace {

// Table entries no row may use: far outside every store, so that a use does not go unnoticed.
constexpr int32_t kNoBlock = 2147480000;

int64_t ring_blocks_per_sequence(const EngineOptions& options) {
  return options.ring_len / options.limits.block_size;
}

// What follows the rows of a chunk of a prompt whose log-probabilities are wanted.
std::span<const int32_t> scored_tokens(const Sequence& sequence, int64_t num_rows) {
  if (!sequence.scores_prompt()) return {};
  const int64_t begin = sequence.num_computed + 1;
  const int64_t end = std::min(begin + num_rows, sequence.num_prompt_tokens);
  if (begin >= end) return {};
  return std::span<const int32_t>(sequence.tokens)
      .subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

// Row `index` of a table: a sequence's blocks, and what none of its rows may use.
void fill_row(std::vector<int32_t>& table, size_t index, size_t width,
              const std::vector<int32_t>& blocks) {
  const auto row = table.begin() + static_cast<std::ptrdiff_t>(index * width);
  const auto rest = std::copy(blocks.begin(), blocks.end(), row);
  std::fill(rest, row + static_cast<std::ptrdiff_t>(width), kNoBlock);
}

bool ranks_before(const Sequence* a, const Sequence* b) {
  return a->ranks_before(*b);
}

}  // namespace

Engine::Engine(EngineOptions options, StepFunction run_step)
    : options_(std::move(options)),
      run_step_(std::move(run_step)),
      rings_(options_.num_ring_blocks),
      pages_(options_.limits.num_page_blocks),
      state_slots_(options_.limits.max_num_seqs),
      prefixes_(
          options_.limits.block_size,
          blocks_for(options_.sliding_window - 1, options_.limits.block_size), pages_,
          BlockPool(options_.num_snapshot_blocks, static_cast<int32_t>(options_.num_ring_blocks)),
          options_.prefix_hash),
      drafts_(options_.pass_rows) {
  const base::Status status = validate(options_);
  TANDEM_CHECK_MSG(status.has_value(), "{}", status.error().message);
  totals_.num_pages = options_.limits.num_page_blocks;
}

base::Status Engine::add_request(EngineRequest request) {
  TANDEM_RETURN_IF_ERROR(check_request(request));
  const uint64_t arrival = num_requests_++;
  const uint64_t seed =
      request.sampling.seed.value_or(sampling::derive_seed(options_.seed, arrival));
  sampling::Sampler sampler(request.sampling, options_.vocab_size, request.prompt_ids,
                            options_.suppress_tokens, options_.eos_token_ids, seed);
  StopRules rules = make_stop_rules(request.sampling, options_.eos_token_ids, request.max_tokens);
  const uint64_t id = request.id;
  const int num_draft_tokens = request.num_draft_tokens.value_or(options_.num_draft_tokens);
  const bool has_own_drafts = request.num_draft_tokens.has_value();
  auto sequence = std::make_unique<Sequence>(std::move(request), std::move(rules),
                                             std::move(sampler), num_draft_tokens, has_own_drafts);
  sequence->arrival = arrival;
  sequence->stats.num_prompt_tokens = sequence->num_prompt_tokens;
  waiting_.insert(std::ranges::upper_bound(waiting_, sequence.get(), ranks_before), sequence.get());
  sequences_.emplace(id, std::move(sequence));
  return {};
}

std::optional<TokenEvent> Engine::cancel(uint64_t id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return std::nullopt;
  TokenEvent event{.id = id};
  event.finish = finish(*found->second, FinishReason::kCancelled);
  return event;
}

std::vector<TokenEvent> Engine::step() {
  std::vector<TokenEvent> events;
  if (!has_work()) return events;
  events.reserve(running_.size());
  const StepPlan plan = this->plan();
  TANDEM_CHECK_GT(plan.num_rows, 0);
  preempt(plan);
  const std::vector<Sequence*> scheduled = reserve(plan);
  const base::Stopwatch clock;
  speculation::SpecResult result = run_step_(make_batch(plan, scheduled));
  // Where drafting is not measured on its own, it is part of what rows cost.
  if (result.verify_time.num_rows == 0) result.verify_time = {plan.num_rows, clock.seconds()};
  ring_copies_.clear();
  drafts_.add_step(result, std::ranges::all_of(plan.sequences, &PlannedSequence::decodes));
  TANDEM_CHECK_EQ(result.sequences.size(), scheduled.size());
  for (size_t i = 0; i < scheduled.size(); ++i) {
    auto event = commit(plan.sequences[i], *scheduled[i], result.sequences[i]);
    if (event) events.push_back(std::move(*event));
  }
  ++totals_.num_steps;
#ifdef TANDEM_DEBUG_CHECKS
  const std::string fault = find_fault();
  TANDEM_CHECK_MSG(fault.empty(), "{}", fault);
#endif
  return events;
}

StepPlan Engine::plan() {
  std::vector<SequenceView> running = view_running();
  std::vector<SequenceView> waiting;
  // No more than the seats can be admitted: a long queue costs nothing.
  const int64_t seats =
      std::min(state_slots_.num_free(), rings_.num_free() / ring_blocks_per_sequence(options_));
  for (Sequence* sequence : waiting_) {
    if (static_cast<int64_t>(waiting.size()) > seats) break;
    const SequenceView view = view_waiting(*sequence);
    bool waits = false;
    for (Sequence* ahead : running_)
      waits |= waits_for(*ahead, ahead->num_computed, *sequence, view);
    for (size_t i = 0; i < waiting.size(); ++i) {
      waits |= waits_for(*waiting_[i], waiting[i].num_computed, *sequence, view);
      waiting[i].chunk_end = std::max(waiting[i].chunk_end, waiting_[i]->snapshot_at);
    }
    if (waits) break;
    waiting.push_back(view);
  }
  for (size_t i = 0; i < running.size(); ++i) running[i].chunk_end = running_[i]->snapshot_at;
  return plan_step(options_.limits, {.running = running,
                                     .waiting = waiting,
                                     .num_free_pages = prefixes_.num_available(),
                                     .num_free_seats = seats});
}

void Engine::preempt(const StepPlan& plan) {
  for (const uint64_t id : plan.preempted) {
    Sequence& sequence = *sequences_.at(id);
    TANDEM_CHECK_EQ(running_.back()->id, id);
    running_.pop_back();
    release(sequence);
    waiting_.insert(std::ranges::upper_bound(waiting_, &sequence, ranks_before), &sequence);
    ++sequence.stats.num_preemptions;
    ++totals_.num_preemptions;
    base::log_debug("request {}: preempted with {} tokens; its KV cache is computed again later",
                    id, sequence.num_tokens());
  }
}

// Gives every planned sequence its places; after this the step cannot fail for lack of them.
std::vector<Sequence*> Engine::reserve(const StepPlan& plan) {
  std::vector<Sequence*> scheduled;
  scheduled.reserve(plan.sequences.size());
  for (const PlannedSequence& planned : plan.sequences) {
    Sequence& sequence = *sequences_.at(planned.id);
    if (planned.admitted) admit(sequence);
    TANDEM_CHECK_EQ(sequence.num_computed, planned.num_computed);
    scheduled.push_back(&sequence);
  }
  // Only now, as it may give up cached pages: those that were found are in use.
  for (size_t i = 0; i < scheduled.size(); ++i)
    prefixes_.allocate(plan.sequences[i].num_new_pages, scheduled[i]->page_blocks);
  return scheduled;
}

void Engine::admit(Sequence& sequence) {
  TANDEM_CHECK_EQ(waiting_.front()->id, sequence.id);
  waiting_.pop_front();
  running_.insert(std::ranges::upper_bound(running_, &sequence, ranks_before), &sequence);
  rings_.allocate(ring_blocks_per_sequence(options_), sequence.ring_blocks);
  state_slots_.allocate(1, sequence.state_slot);
  start_behind_prefix(sequence);
  if (sequence.was_scheduled) return;
  sequence.was_scheduled = true;
  sequence.stats.queue_seconds = sequence.age.seconds();
  totals_.num_prompt_tokens += sequence.num_prompt_tokens;
}

speculation::SpecBatch Engine::make_batch(const StepPlan& plan,
                                          std::span<Sequence* const> scheduled) {
  const auto ring_width = static_cast<size_t>(ring_blocks_per_sequence(options_));
  size_t page_width = 1;
  for (const Sequence* sequence : scheduled)
    page_width = std::max(page_width, sequence->page_blocks.size());
  ring_table_.resize(scheduled.size() * ring_width);
  page_table_.resize(scheduled.size() * page_width);
  speculation::SpecBatch batch;
  batch.sequences.reserve(scheduled.size());
  for (size_t i = 0; i < scheduled.size(); ++i) {
    Sequence& sequence = *scheduled[i];
    const PlannedSequence& planned = plan.sequences[i];
    fill_row(ring_table_, i, ring_width, sequence.ring_blocks);
    fill_row(page_table_, i, page_width, sequence.page_blocks);
    batch.sequences.push_back({.state_slot = sequence.state_slot.front(),
                               .tokens = std::span<const int32_t>(sequence.tokens)
                                             .subspan(static_cast<size_t>(sequence.num_computed),
                                                      static_cast<size_t>(planned.num_tokens)),
                               .start_position = sequence.num_computed,
                               .num_prompt_tokens = sequence.num_prompt_tokens,
                               .samples = planned.samples,
                               .num_draft_tokens = planned.num_draft_tokens,
                               .sampler = &sequence.sampler,
                               .constraint = sequence.constraint.get(),
                               .scored_tokens = scored_tokens(sequence, planned.num_tokens),
                               .num_scored_top = sequence.sampler.params().num_prompt_logprobs});
  }
  const int64_t block_size = options_.limits.block_size;
  batch.ring = {ring_table_, static_cast<int64_t>(ring_width), block_size, options_.ring_len};
  batch.pages = {page_table_, static_cast<int64_t>(page_width), block_size, 0};
  batch.ring_copies = ring_copies_;
  return batch;
}

// The only place where a sequence grows.
std::optional<TokenEvent> Engine::commit(const PlannedSequence& planned, Sequence& sequence,
                                         speculation::SpecSequenceResult& result) {
  keep_scores(sequence, result);
  sequence.num_computed += planned.num_tokens;
  sequence.num_written = sequence.num_computed + planned.num_draft_tokens;
  if (!planned.samples) {
    TANDEM_CHECK(result.tokens.empty());
    share_pages(sequence);
    return std::nullopt;
  }
  TANDEM_CHECK_LE(result.num_drafted, planned.num_draft_tokens);
  TANDEM_CHECK_EQ(static_cast<int>(result.tokens.size()),
                  result.num_accepted + (result.failed ? 0 : 1));
  count_round(sequence, result);
  StopCut cut = find_stop(result.tokens, sequence.num_output_tokens(), sequence.stop);
  if (!cut.reason && sequence.constraint && sequence.constraint->finished())
    cut = {cut.num_kept, FinishReason::kStop, result.tokens.back().token};
  result.tokens.resize(cut.num_kept);
  for (const sampling::TokenChoice& choice : result.tokens) sequence.tokens.push_back(choice.token);
  totals_.num_output_tokens += static_cast<int64_t>(cut.num_kept);
  if (cut.num_kept > 0 && sequence.stats.first_token_seconds == 0)
    sequence.stats.first_token_seconds = sequence.age.seconds();
  // Rejected drafts left KV behind these positions; the next rows write over it.
  sequence.num_computed += result.num_accepted;
  if (!result.failed) share_pages(sequence);
  sequence.has_state = true;
  TokenEvent event{.id = sequence.id,
                   .tokens = std::move(result.tokens),
                   .num_drafted = result.num_drafted,
                   .num_accepted = std::min(result.num_accepted, static_cast<int>(cut.num_kept)),
                   .num_cached_tokens = sequence.stats.num_cached_tokens,
                   .prompt_scores = std::exchange(sequence.prompt_scores, {})};
  if (cut.reason) {
    event.finish = finish(sequence, *cut.reason);
    event.finish->stop_token = cut.stop_token;
  } else if (result.failed) {
    event.finish = finish(sequence, FinishReason::kError);
    event.finish->error =
        "the model gave no usable logits for the next token (NaN, infinity, or every token is "
        "suppressed or banned)";
  }
  return event;
}

// A chunk that is computed again after a preemption has its scores written again.
void Engine::keep_scores(Sequence& sequence, speculation::SpecSequenceResult& result) {
  if (result.scores.empty()) return;
  TANDEM_CHECK(sequence.scores_prompt());
  const auto begin = static_cast<size_t>(sequence.num_computed);
  const size_t end = begin + result.scores.size();
  TANDEM_CHECK_LT(static_cast<int64_t>(end), sequence.num_prompt_tokens);
  if (sequence.prompt_scores.size() < end) sequence.prompt_scores.resize(end);
  std::ranges::move(result.scores,
                    sequence.prompt_scores.begin() + static_cast<std::ptrdiff_t>(begin));
}

void Engine::count_round(Sequence& sequence, const speculation::SpecSequenceResult& result) {
  sequence.stats.acceptance.add_round(result.num_drafted, result.num_accepted);
  if (sequence.has_state)
    drafts_.add_round(sequence.acceptance, result.num_drafted, result.num_accepted);
  totals_.acceptance.add_round(result.num_drafted, result.num_accepted);
  if (!options_.watch_acceptance) return;
  const auto warning = watch_.add_round(result.num_drafted, result.num_accepted);
  if (!warning) return;
  ++totals_.num_acceptance_warnings;
  base::log_warning("{}", *warning);
}

// Removes the sequence; the reference is dead afterwards.
Finish Engine::finish(Sequence& sequence, FinishReason reason) {
  Finish finish{.reason = reason, .stop_token = {}, .error = {}, .stats = sequence.stats};
  finish.stats.num_output_tokens = sequence.num_output_tokens();
  finish.stats.total_seconds = sequence.age.seconds();
  // The next turn of a chat starts with this one.
  leave_snapshot(sequence, sequence.num_shared_pages());
  release(sequence);
  std::erase(running_, &sequence);
  std::erase(waiting_, &sequence);
  sequences_.erase(sequence.id);
  ++totals_.num_finished;
  return finish;
}

void Engine::release(Sequence& sequence) {
  rings_.release(sequence.ring_blocks);
  auto& pages = sequence.page_blocks;
  pages.erase(pages.begin(), pages.begin() + sequence.num_shared_pages());
  pages_.release(pages);
  prefixes_.release(std::exchange(sequence.prefix_tail, nullptr));
  state_slots_.release(sequence.state_slot);
  sequence.num_computed = 0;
  sequence.num_written = 0;
  sequence.ring_begin = 0;
  sequence.snapshot_at = 0;
  sequence.has_state = false;
  sequence.next_drafts.reset();
}

EngineStats Engine::stats() const {
  EngineStats stats = totals_;
  stats.num_running = static_cast<int64_t>(running_.size());
  stats.num_waiting = static_cast<int64_t>(waiting_.size());
  stats.num_held_pages = pages_.num_held() - prefixes_.num_unused();
  return stats;
}

}  // namespace tandem::engine
