// Who runs in the next step, and how many rows each has: a pure function of a few integers.
//
// Sequences rank by priority, then by arrival. Every running one has computed tokens that chase its
// known tokens; there are no phases.
// 1. Each decoding sequence gets its one row. If pages are short, those that rank last are
//    preempted; so are running ones of lower priority than the first in the queue when that gives
//    it a place. The first of all is never preempted and always has rows, so that every request
//    finishes.
// 2. Drafts share what is left of the budget evenly; they never cause a preemption, and leave a
//    part of the budget to prefill while there is some.
// 3. Prefill chunks of running sequences and new sequences, as they rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tandem::engine {

struct SchedulerLimits {
  int64_t max_num_seqs = 1;              // running at once
  int64_t max_num_batched_tokens = 512;  // rows of one step; at least max_num_seqs
  int64_t max_chunk_tokens = 512;        // rows of one prefill chunk
  int64_t block_size = 16;
  int64_t num_page_blocks = 0;
};

struct SequenceView {
  uint64_t id = 0;
  int64_t priority = 0;  // lower ones are served first
  int64_t num_tokens = 0;
  int64_t num_computed = 0;      // when waiting: what the prefix cache has
  bool has_state = false;        // may draft; then num_computed == num_tokens - 1
  int64_t num_pages = 0;         // held; when waiting: those that the prefix cache has
  int64_t num_kept_pages = 0;    // of these: not free when it goes, as others before it hold them
  int64_t num_unused_pages = 0;  // when waiting: of num_pages, those that now count as free
  int64_t chunk_end = 0;         // no prefill chunk crosses this position; 0: none such
  int max_draft_tokens = 0;      // K, already cut to what the request may still emit

  int64_t num_pending() const { return num_tokens - num_computed; }
};

// Pages that its first `num_positions` take beyond those it has.
int64_t missing_pages(const SequenceView& sequence, int64_t num_positions, int64_t block_size);

struct SchedulerInput {
  std::span<const SequenceView> running;  // by rank
  std::span<const SequenceView> waiting;  // by rank, preempted ones included; of equal priority,
                                          // behind those that run
  int64_t num_free_pages = 0;             // cached ones that nobody uses included
  int64_t num_free_seats = 0;             // sequences for which there is a ring and a state row
};

struct PlannedSequence {
  uint64_t id = 0;
  int64_t num_computed = 0;  // as in its view
  int64_t num_tokens = 0;    // rows of known tokens, from num_computed on
  int num_draft_tokens = 0;  // further rows, drafted in this step
  bool samples = false;      // the known tokens end here
  bool admitted = false;     // was waiting
  int64_t num_new_pages = 0;

  int64_t num_rows() const { return num_tokens + num_draft_tokens; }
  bool decodes() const { return samples && num_tokens == 1; }
};

struct StepPlan {
  std::vector<PlannedSequence> sequences;
  std::vector<uint64_t> preempted;  // the last in rank first
  int64_t num_rows = 0;
};

StepPlan plan_step(const SchedulerLimits& limits, const SchedulerInput& input);

}  // namespace tandem::engine
