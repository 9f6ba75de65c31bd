#include "engine/scheduler.h"

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "engine/block_pool.h"

namespace tandem::engine {
namespace {

// Share of the budget that drafts leave to prefill while there is some.
constexpr int64_t kPrefillShare = 4;

class Planner {
 public:
  Planner(const SchedulerLimits& limits, const SchedulerInput& input)
      : limits_(limits),
        input_(input),
        num_kept_(input.running.size()),
        free_pages_(input.num_free_pages),
        budget_(limits.max_num_batched_tokens) {}

  StepPlan run() {
    keep_what_fits();
    make_room();
    plan_decodes();
    plan_drafts();
    plan_prefills();
    plan_.num_rows = limits_.max_num_batched_tokens - budget_;
    return std::move(plan_);
  }

 private:
  int64_t missing_pages(const SequenceView& sequence, int64_t num_positions) const {
    return engine::missing_pages(sequence, num_positions, limits_.block_size);
  }

  // The longest prefix of `running` whose known tokens have pages.
  void keep_what_fits() {
    for (size_t i = 0; i < num_kept_; ++i) {
      const SequenceView& sequence = input_.running[i];
      const int64_t needed = missing_pages(sequence, sequence.num_tokens);
      while (needed > free_pages_ && num_kept_ > i) {
        TANDEM_CHECK_MSG(num_kept_ > 1, "sequence {} does not fit alone", sequence.id);
        free_pages_ += held_pages(preempt_last());
      }
      if (i < num_kept_) free_pages_ -= needed;
    }
  }

  const SequenceView& preempt_last() {
    const SequenceView& last = input_.running[--num_kept_];
    plan_.preempted.push_back(last.id);
    return last;
  }

  // Those that nobody before it holds as well.
  static int64_t held_pages(const SequenceView& sequence) {
    return sequence.num_pages - sequence.num_kept_pages;
  }

  // Pages that admitting takes from the free ones. Cached ones that only preempted sequences used
  // have just been counted as free.
  int64_t pages_to_admit(const SequenceView& sequence, bool preempts) const {
    return missing_pages(sequence, sequence.num_tokens) +
           (preempts ? sequence.num_pages : sequence.num_unused_pages);
  }

  // A new sequence takes the pages of all its known tokens at once, so that a prefill never waits
  // for pages half-way, and leaves one page of growth to everyone who runs.
  bool fits(const SequenceView& sequence, size_t num_kept, int64_t free_pages) const {
    const bool preempts = num_kept < input_.running.size();
    const int64_t num_running = static_cast<int64_t>(num_kept) + num_admitted_;
    const int64_t headroom = num_running == 0 ? 0 : num_running + 1;
    const int64_t seats =
        input_.num_free_seats + static_cast<int64_t>(input_.running.size()) - num_running;
    return seats > 0 && num_running < limits_.max_num_seqs &&
           pages_to_admit(sequence, preempts) + headroom <= free_pages;
  }

  // Puts pages aside for the first in the queue, so that drafts do not take them; preempts for it
  // if that gives it a place.
  void make_room() {
    if (input_.waiting.empty()) return;
    const SequenceView& first = input_.waiting.front();
    size_t num_kept = num_kept_;
    int64_t free_pages = free_pages_;
    while (!fits(first, num_kept, free_pages)) {
      if (num_kept == 0 || input_.running[num_kept - 1].priority <= first.priority) return;
      const SequenceView& last = input_.running[--num_kept];
      free_pages += held_pages(last) + missing_pages(last, last.num_tokens);
    }
    while (num_kept_ > num_kept) preempt_last();
    const bool preempts = !plan_.preempted.empty();
    if (preempts && first.priority >= input_.running[num_kept_].priority) return;
    free_pages_ = free_pages - pages_to_admit(first, preempts);
    has_room_ = true;
  }

  std::span<const SequenceView> kept() const { return input_.running.first(num_kept_); }

  void plan_decodes() {
    for (const SequenceView& sequence : kept()) {
      if (!sequence.has_state) continue;
      TANDEM_CHECK_EQ(sequence.num_pending(), 1);
      add(sequence, 1, missing_pages(sequence, sequence.num_tokens));
      decoding_.push_back(&sequence);
    }
    TANDEM_CHECK_GE(budget_, 0);
  }

  // The largest common cap on K that the budget allows.
  int draft_cap() const {
    const bool prefills = decoding_.size() < num_kept_ || !input_.waiting.empty();
    const int64_t reserved =
        prefills ? std::max<int64_t>(1, limits_.max_num_batched_tokens / kPrefillShare) : 0;
    int most = 0;
    for (const SequenceView* sequence : decoding_)
      most = std::max(most, sequence->max_draft_tokens);
    for (int cap = most; cap > 0; --cap) {
      int64_t rows = 0;
      for (const SequenceView* sequence : decoding_)
        rows += std::min(cap, sequence->max_draft_tokens);
      if (rows <= budget_ - reserved) return cap;
    }
    return 0;
  }

  void plan_drafts() {
    const int cap = draft_cap();
    for (size_t i = 0; i < decoding_.size(); ++i) {
      const SequenceView& sequence = *decoding_[i];
      PlannedSequence& planned = plan_.sequences[i];
      int drafts = std::min(cap, sequence.max_draft_tokens);
      const auto extra_pages = [&] {
        return missing_pages(sequence, sequence.num_tokens + drafts) - planned.num_new_pages;
      };
      while (drafts > 0 && extra_pages() > free_pages_) --drafts;
      free_pages_ -= extra_pages();
      planned.num_new_pages += extra_pages();
      planned.num_draft_tokens = drafts;
      budget_ -= drafts;
    }
  }

  int64_t chunk(const SequenceView& sequence) const {
    const int64_t longest = std::min({sequence.num_pending(), budget_, limits_.max_chunk_tokens});
    const int64_t to_end = sequence.chunk_end - sequence.num_computed;
    return to_end > 0 ? std::min(longest, to_end) : longest;
  }

  void plan_prefills() {
    for (const SequenceView& sequence : kept()) {
      if (sequence.has_state) continue;
      admit_before(sequence.priority);
      if (budget_ == 0) return;
      add(sequence, chunk(sequence), missing_pages(sequence, sequence.num_tokens));
    }
    admit_before(std::numeric_limits<int64_t>::max());
  }

  // What was just preempted, and what ranks behind it, must not come back at once: it would be
  // preempted again.
  void admit_before(int64_t priority) {
    if (!plan_.preempted.empty()) priority = std::min(priority, input_.running[num_kept_].priority);
    while (num_admitted_ < static_cast<int64_t>(input_.waiting.size()) && budget_ > 0) {
      const SequenceView& next = input_.waiting[static_cast<size_t>(num_admitted_)];
      const bool put_aside = has_room_ && num_admitted_ == 0;
      if (next.priority >= priority || !(put_aside || fits(next, num_kept_, free_pages_))) return;
      if (!put_aside) free_pages_ -= pages_to_admit(next, !plan_.preempted.empty());
      add(next, chunk(next), missing_pages(next, next.num_tokens));
      plan_.sequences.back().admitted = true;
      ++num_admitted_;
    }
  }

  void add(const SequenceView& sequence, int64_t num_tokens, int64_t num_new_pages) {
    TANDEM_CHECK_GT(num_tokens, 0);
    plan_.sequences.push_back({.id = sequence.id,
                               .num_computed = sequence.num_computed,
                               .num_tokens = num_tokens,
                               .samples = num_tokens == sequence.num_pending(),
                               .num_new_pages = num_new_pages});
    budget_ -= num_tokens;
  }

  const SchedulerLimits& limits_;
  const SchedulerInput& input_;
  size_t num_kept_;           // running[0 .. num_kept_) go on
  int64_t num_admitted_ = 0;  // waiting[0 .. num_admitted_) begin
  bool has_room_ = false;     // pages for waiting[0] are put aside
  int64_t free_pages_;
  int64_t budget_;
  std::vector<const SequenceView*> decoding_;
  StepPlan plan_;
};

}  // namespace

int64_t missing_pages(const SequenceView& sequence, int64_t num_positions, int64_t block_size) {
  return std::max<int64_t>(0, blocks_for(num_positions, block_size) - sequence.num_pages);
}

StepPlan plan_step(const SchedulerLimits& limits, const SchedulerInput& input) {
  TANDEM_CHECK_GE(limits.max_num_batched_tokens, limits.max_num_seqs);
  TANDEM_CHECK_LE(static_cast<int64_t>(input.running.size()), limits.max_num_seqs);
  return Planner(limits, input).run();
}

}  // namespace tandem::engine
