// Where the engine and its prefix cache meet: what a sequence starts behind, and what it leaves.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "engine/engine.h"

namespace tandem::engine {
namespace {

// K of the next round: what may still come out is the drafts and one more token, and the last
// token that can come out needs no place.
int draft_limit(const Sequence& sequence) {
  const int64_t remaining = sequence.stop.max_tokens - sequence.num_output_tokens();
  return static_cast<int>(std::min<int64_t>(sequence.num_draft_tokens, remaining - 1));
}

// Whether the engine may choose its K.
bool leaves_drafts(const Sequence& sequence) {
  return sequence.has_state && !sequence.has_own_drafts;
}

SequenceView view_of(const Sequence& sequence) {
  return {.id = sequence.id,
          .priority = sequence.priority,
          .num_tokens = sequence.num_tokens(),
          .num_computed = sequence.num_computed,
          .has_state = sequence.has_state,
          .num_pages = static_cast<int64_t>(sequence.page_blocks.size()),
          .chunk_end = sequence.snapshot_at,
          .max_draft_tokens = draft_limit(sequence)};
}

}  // namespace

// Whether the next plan may take places from those that run.
bool Engine::may_preempt(std::span<const SequenceView> running) const {
  if (running.empty()) return false;
  if (!waiting_.empty() && running.back().priority > waiting_.front()->priority) return true;
  int64_t num_missing = 0;
  for (const SequenceView& sequence : running)
    num_missing += missing_pages(sequence, sequence.num_tokens, options_.limits.block_size);
  return num_missing > prefixes_.num_available();
}

std::vector<SequenceView> Engine::view_running() {
  std::vector<SequenceView> views;
  views.reserve(running_.size());
  for (const Sequence* sequence : running_) views.push_back(view_of(*sequence));
  // What others hold of a sequence's pages counts only where it may have to go: finding out visits
  // all of them, and the device waits meanwhile.
  if (may_preempt(views)) {
    ++num_visits_;
    for (size_t i = 0; i < running_.size(); ++i) {
      const int64_t first_seen =
          PrefixCache::count_unvisited(running_[i]->prefix_tail, num_visits_);
      views[i].num_kept_pages = running_[i]->num_shared_pages() - first_seen;
    }
  }
  choose_drafts(views);
  return views;
}

// K of those that leave it to the engine.
void Engine::choose_drafts(std::vector<SequenceView>& running) {
  const int most = most_drafts();
  for (size_t i = 0; i < running.size(); ++i)
    if (!running_[i]->has_own_drafts)
      running[i].max_draft_tokens = std::min(running[i].max_draft_tokens, most);
  if (!options_.auto_drafts) return;
  // A choice made while the device was at the round before is as good; who is new has none.
  const auto is_open = [&](const Sequence* s) { return leaves_drafts(*s) && !s->next_drafts; };
  if (std::ranges::any_of(running_, is_open)) prepare();
  for (size_t i = 0; i < running.size(); ++i) {
    if (!leaves_drafts(*running_[i])) continue;
    const int chosen = std::exchange(running_[i]->next_drafts, std::nullopt).value();
    running[i].max_draft_tokens = std::min(running[i].max_draft_tokens, chosen);
  }
}

int Engine::most_drafts() const {
  const auto next_range = options_.drafts_from.upper_bound(static_cast<int64_t>(running_.size()));
  return next_range == options_.drafts_from.begin() ? speculation::kMaxDraftTokens
                                                    : std::prev(next_range)->second;
}

void Engine::prepare() {
  if (!options_.auto_drafts) return;
  const int most = most_drafts();
  std::vector<DraftCandidate> candidates;
  for (const Sequence* sequence : running_)
    if (leaves_drafts(*sequence))
      candidates.push_back({&sequence->acceptance, std::min(draft_limit(*sequence), most)});
  const std::vector<int> counts = drafts_.choose(candidates);
  size_t next = 0;
  for (Sequence* sequence : running_) {
    if (!leaves_drafts(*sequence)) continue;
    const int count = counts[next++];
    if (!sequence->next_drafts) sequence->next_drafts = count;
  }
}

SequenceView Engine::view_waiting(Sequence& sequence) const {
  SequenceView view = view_of(sequence);
  const PrefixMatch match = match_prefix(sequence);
  view.num_computed = match.num_pages * options_.limits.block_size;
  view.num_pages = match.num_pages;
  view.num_unused_pages = match.num_unused;
  view.chunk_end = match.num_known_pages * options_.limits.block_size;
  return view;
}

// True while `ahead` computes a beginning that both have: it costs nothing to wait for it, and half
// to start behind it. `ahead` is asked to leave a snapshot there.
bool Engine::waits_for(Sequence& ahead, int64_t ahead_computed, Sequence& sequence,
                       const SequenceView& view) const {
  if (!options_.prefix_caching || ahead.has_state || sequence.scores_prompt() ||
      ahead.priority > sequence.priority)
    return false;
  const int64_t block_size = options_.limits.block_size;
  const int64_t num_common =
      prefixes_.num_common_pages(sequence.prefix_key, sequence.tokens, ahead.prefix_key,
                                 ahead.tokens, (sequence.num_tokens() - 1) / block_size);
  const int64_t end = num_common * block_size;
  if (end <= view.num_computed || end <= ahead_computed ||
      !prefixes_.has_room_for_snapshot_at(num_common))
    return false;
  if (ahead.snapshot_at <= ahead_computed || end < ahead.snapshot_at) ahead.snapshot_at = end;
  return true;
}

// At least one token is left to compute: its row gives the next token and the state to draft from.
PrefixMatch Engine::match_prefix(Sequence& sequence) const {
  if (!options_.prefix_caching || sequence.scores_prompt()) return {};
  const int64_t most = (sequence.num_tokens() - 1) / options_.limits.block_size;
  return prefixes_.find(sequence.prefix_key, sequence.tokens, most);
}

void Engine::start_behind_prefix(Sequence& sequence) {
  const PrefixMatch match = match_prefix(sequence);
  const int64_t block_size = options_.limits.block_size;
  if (match.num_pages > 0) {
    prefixes_.acquire(match.tail, sequence.page_blocks);
    prefixes_.touch_snapshot(*match.tail);
    sequence.prefix_tail = match.tail;
    sequence.num_computed = sequence.num_written = match.num_pages * block_size;
    const auto& snapshot = match.tail->snapshot;
    const auto count = static_cast<int64_t>(snapshot.size());
    sequence.ring_begin = (match.num_pages - count) * block_size;
    for (int64_t i = 0; i < count; ++i)
      ring_copies_.push_back(
          {snapshot[static_cast<size_t>(i)], ring_block_of(sequence, match.num_pages - count + i)});
  }
  // Others have been here and went on differently: a place worth a snapshot.
  if (match.num_known_pages > match.num_pages)
    sequence.snapshot_at = match.num_known_pages * block_size;
  if (sequence.was_scheduled || !options_.prefix_caching) return;
  sequence.stats.num_cached_tokens = sequence.num_computed;
  totals_.num_prefix_queries += sequence.num_prompt_tokens;
  totals_.num_prefix_hits += sequence.num_computed;
}

int32_t Engine::ring_block_of(const Sequence& sequence, int64_t position_block) const {
  const auto num_blocks = static_cast<int64_t>(sequence.ring_blocks.size());
  return sequence.ring_blocks[static_cast<size_t>(position_block % num_blocks)];
}

// Hands the pages that have become full to the cache, and leaves snapshots where another sequence
// is likely to start: where prompts part, and at the end of a prompt.
void Engine::share_pages(Sequence& sequence) {
  if (!options_.prefix_caching) return;
  const int64_t block_size = options_.limits.block_size;
  // A stop may have cut off tokens whose keys are there.
  const int64_t num_known = std::min(sequence.num_computed, sequence.num_tokens());
  for (int64_t page = sequence.num_shared_pages(); page < num_known / block_size; ++page) {
    int32_t& block = sequence.page_blocks[static_cast<size_t>(page)];
    sequence.prefix_tail =
        prefixes_.insert(sequence.prefix_tail, sequence.prefix_key, sequence.tokens, block);
    block = sequence.prefix_tail->page;
  }
  if (sequence.has_state) return;
  if (sequence.num_computed == sequence.snapshot_at)
    leave_snapshot(sequence, sequence.snapshot_at / block_size);
  if (sequence.num_computed >= sequence.num_prompt_tokens)
    leave_snapshot(sequence, (sequence.num_prompt_tokens - 1) / block_size);
}

bool Engine::ring_still_has(const Sequence& sequence, int64_t num_pages) const {
  // What the row behind them sees.
  const int64_t first_needed =
      std::max<int64_t>(0, num_pages * options_.limits.block_size - options_.sliding_window + 1);
  return sequence.ring_begin <= first_needed &&
         sequence.num_written <= first_needed + options_.ring_len;
}

void Engine::leave_snapshot(const Sequence& sequence, int64_t num_pages) {
  if (num_pages == 0 || !ring_still_has(sequence, num_pages)) return;
  PrefixNode* node = sequence.prefix_tail;
  while (node->depth > num_pages) node = node->parent;
  if (!prefixes_.add_snapshot(*node)) return;
  const auto count = static_cast<int64_t>(node->snapshot.size());
  for (int64_t i = 0; i < count; ++i)
    ring_copies_.push_back(
        {ring_block_of(sequence, num_pages - count + i), node->snapshot[static_cast<size_t>(i)]});
}

}  // namespace tandem::engine
