// One request being worked on: the only mutable per-request state. Written by the engine alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "engine/draft_policy.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/stop.h"
#include "sampling/sampler.h"

namespace tandem::engine {

struct Sequence {
  // draft_tokens: K, or the most where the engine chooses it.
  Sequence(EngineRequest request, StopRules stop_rules, sampling::Sampler token_sampler,
           int draft_tokens, bool own_drafts)
      : id(request.id),
        priority(request.priority),
        tokens(std::move(request.prompt_ids)),
        num_prompt_tokens(static_cast<int64_t>(tokens.size())),
        stop(std::move(stop_rules)),
        sampler(std::move(token_sampler)),
        num_draft_tokens(draft_tokens),
        has_own_drafts(own_drafts),
        constraint(std::move(request.constraint)) {
    prefix_key.salt = std::move(request.cache_salt);
  }

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  bool ranks_before(const Sequence& other) const {
    return priority != other.priority ? priority < other.priority : arrival < other.arrival;
  }
  int64_t num_output_tokens() const { return num_tokens() - num_prompt_tokens; }
  int64_t num_shared_pages() const { return prefix_tail == nullptr ? 0 : prefix_tail->depth; }
  // Prompt rows are scored once: not when they are computed again after a preemption.
  bool scores_prompt() const {
    return sampler.params().num_prompt_logprobs >= 0 && num_output_tokens() == 0;
  }

  uint64_t id;
  int64_t priority;             // lower ones are served first
  uint64_t arrival = 0;         // counts up; among equals, earlier ones are
  std::vector<int32_t> tokens;  // prompt, then kept output
  int64_t num_prompt_tokens;
  StopRules stop;
  sampling::Sampler sampler;
  int num_draft_tokens;                               // K asked for
  bool has_own_drafts;                                // the request named K: it stays
  AcceptanceEstimate acceptance;                      // for that
  std::optional<int> next_drafts;                     // K of the next round, once it is chosen
  std::shared_ptr<base::TokenConstraint> constraint;  // stands behind the last token; null: none
  PrefixKey prefix_key;

  // While it runs; all empty and 0 while it waits. Preemption gives everything back: the tokens
  // are run again later and, a row's result being a function of its tokens, give the same text.
  int64_t num_computed = 0;  // positions 0 .. num_computed-1 have valid KV
  bool has_state = false;    // the state row belongs to position num_computed-1: it can draft
  std::vector<int32_t> ring_blocks;
  std::vector<int32_t> page_blocks;
  std::vector<int32_t> state_slot;    // one entry while it runs
  PrefixNode* prefix_tail = nullptr;  // the last of page_blocks that the prefix cache owns, and all
                                      // before it; null: none
  int64_t num_written = 0;            // positions that have been written, rejected drafts included
  int64_t ring_begin = 0;             // the ring never had positions before
  int64_t snapshot_at = 0;            // a prefill chunk ends here, to leave a snapshot; 0: nowhere

  std::vector<sampling::TokenScore> prompt_scores;  // of prompt token i + 1, until they are told

  base::Stopwatch age;
  bool was_scheduled = false;
  RequestStats stats;
};

}  // namespace tandem::engine
