// Continuous batching: plan -> reserve -> execute -> commit, one step at a time.
//
// Single-threaded and synchronous: whoever owns the engine calls step() while has_work(). Nothing
// is visible before commit. The text of a request depends on its tokens, its parameters and its
// seed alone: not on K, the batch, chunking or preemption.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "engine/acceptance_watch.h"
#include "engine/block_pool.h"
#include "engine/draft_policy.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "speculation/spec_batch.h"

namespace tandem::engine {

struct EngineOptions {
  SchedulerLimits limits;  // block_size and num_page_blocks as in the KV store
  int64_t ring_len = 0;    // positions in a sequence's ring
  int64_t num_ring_blocks = 0;
  bool prefix_caching = false;
  int64_t sliding_window = 0;       // keys that a row of a sliding layer sees
  int64_t num_snapshot_blocks = 0;  // ring blocks behind the others, for the prefix cache
  PrefixHash prefix_hash = {};      // tests give a bad one
  int64_t max_model_len = 0;        // prompt and output of a request
  int64_t vocab_size = 0;
  int num_draft_tokens = 0;  // K of requests that name none, and the most they may name
  bool auto_drafts = false;  // those that name none have in each round what is best, up to K
  // The step takes passes of so many rows, each padded: what one more row costs.
  // 0: every row has its price.
  int64_t pass_rows = 0;
  // Those that name none have this K from so many running requests on; before, num_draft_tokens.
  std::map<int64_t, int> drafts_from = {};
  bool priorities = false;     // else every request has priority 0: first come, first served
  int64_t max_num_queued = 0;  // requests waiting for their first step; 0: no bound
  std::vector<int32_t> eos_token_ids;
  std::vector<int32_t> suppress_tokens;
  uint64_t seed = 0;             // seeds of requests without one are derived from it
  bool watch_acceptance = true;  // false with synthetic acceptance or random weights
};

struct EngineStats {
  int64_t num_steps = 0;
  int64_t num_running = 0;
  int64_t num_waiting = 0;
  int64_t num_pages = 0;
  int64_t num_held_pages = 0;  // by requests
  int64_t num_preemptions = 0;
  int64_t num_finished = 0;
  int64_t num_prompt_tokens = 0;  // of requests that began; each once, however often preempted
  int64_t num_output_tokens = 0;
  int64_t num_prefix_queries = 0;       // prompt tokens looked up in the prefix cache
  int64_t num_prefix_hits = 0;          // and found: they were not computed again
  int64_t num_acceptance_warnings = 0;  // times that acceptance looked broken
  speculation::AcceptanceStats acceptance;
};

// Executes a planned step: SpeculativeStep::run with its context, or a script in tests.
using StepFunction = std::function<speculation::SpecResult(const speculation::SpecBatch&)>;

class Engine {
 public:
  // `options` must pass validate().
  Engine(EngineOptions options, StepFunction run_step);
  static base::Status validate(const EngineOptions& options);

  // Queues a request. Refuses what is invalid, what can never fit (with both numbers), and what
  // the queue has no room for (kResourceExhausted).
  base::Status add_request(EngineRequest request);
  // Ends a request at once and gives its places back. Nothing for an id that is not there.
  std::optional<TokenEvent> cancel(uint64_t id);

  bool has_work() const { return !sequences_.empty(); }
  // One step: at least one row of work when has_work(). Events in the order of the batch.
  std::vector<TokenEvent> step();
  // May be called by what executes a step, while it waits for a device: chooses the drafts of the
  // next one, by all that is known before this one ends.
  void prepare();

  EngineStats stats() const;
  const EngineOptions& options() const { return options_; }
  // The most tokens, prompt and output, a request may have.
  int64_t max_request_tokens() const;
  // Empty when every invariant holds; else the first that does not.
  std::string find_fault() const;

 private:
  base::Status check_request(const EngineRequest& request) const;
  StepPlan plan();
  void preempt(const StepPlan& plan);
  std::vector<Sequence*> reserve(const StepPlan& plan);
  void admit(Sequence& sequence);
  speculation::SpecBatch make_batch(const StepPlan& plan, std::span<Sequence* const> scheduled);
  std::optional<TokenEvent> commit(const PlannedSequence& planned, Sequence& sequence,
                                   speculation::SpecSequenceResult& result);
  static void keep_scores(Sequence& sequence, speculation::SpecSequenceResult& result);
  void count_round(Sequence& sequence, const speculation::SpecSequenceResult& result);
  Finish finish(Sequence& sequence, FinishReason reason);
  void release(Sequence& sequence);

  // engine_prefix.cc
  std::vector<SequenceView> view_running();
  bool may_preempt(std::span<const SequenceView> running) const;
  void choose_drafts(std::vector<SequenceView>& running);
  int most_drafts() const;  // of those that name none
  SequenceView view_waiting(Sequence& sequence) const;
  PrefixMatch match_prefix(Sequence& sequence) const;
  bool waits_for(Sequence& ahead, int64_t ahead_computed, Sequence& sequence,
                 const SequenceView& view) const;
  void start_behind_prefix(Sequence& sequence);
  void share_pages(Sequence& sequence);
  void leave_snapshot(const Sequence& sequence, int64_t num_pages);
  bool ring_still_has(const Sequence& sequence, int64_t num_pages) const;
  int32_t ring_block_of(const Sequence& sequence, int64_t position_block) const;

  EngineOptions options_;
  StepFunction run_step_;
  std::unordered_map<uint64_t, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;  // by rank: priority, then arrival
  std::deque<Sequence*> waiting_;   // by rank; of equal priority, all younger than those running
  BlockPool rings_;
  BlockPool pages_;
  BlockPool state_slots_;
  PrefixCache prefixes_;                           // owns some of pages_
  std::vector<model::RingBlockCopy> ring_copies_;  // in order, before the next step's rows
  uint64_t num_visits_ = 0;                        // of PrefixCache::count_unvisited
  std::vector<int32_t> ring_table_;                // [batch, ring blocks per sequence]
  std::vector<int32_t> page_table_;                // [batch, most pages of one sequence]
  AcceptanceWatch watch_;
  DraftPolicy drafts_;
  EngineStats totals_;
  uint64_t num_requests_ = 0;
};

}  // namespace tandem::engine
