// How much KV cache there is: from a memory budget to block counts. Pure arithmetic.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace tandem::engine {

struct KvPlanInput {
  int64_t ring_block_bytes = 0;  // one block of all sliding layers
  int64_t page_block_bytes = 0;  // one block of all full layers
  int64_t block_size = 16;
  int64_t ring_len = 0;         // positions in a ring
  int64_t snapshot_blocks = 0;  // of a ring, what a cached prefix keeps of it; 0: no prefix cache
  int64_t max_num_seqs = 1;     // asked for
  int64_t max_model_len = 0;    // asked for; 0: as long as memory allows, at most longest_model_len
  int64_t longest_model_len = 0;
  int64_t budget_bytes = 0;
};

struct KvPlan {
  int64_t max_num_seqs = 0;
  int64_t max_model_len = 0;
  int64_t num_ring_blocks = 0;      // of the sequences
  int64_t num_snapshot_blocks = 0;  // of the prefix cache, behind those
  int64_t num_page_blocks = 0;
  int64_t size_bytes = 0;
  int64_t snapshot_bytes = 0;   // of size_bytes
  int64_t asked_num_seqs = 0;   // max_num_seqs is lower when rings are short
  int64_t bytes_for_asked = 0;  // the least budget that would give all of them a ring
  int64_t budget_bytes = 0;
};

// As many of the asked sequences as have a ring while one of them can reach max_model_len; the rest
// of the budget goes to pages, never more than all of them can fill and a page of growth for each,
// but for a quarter at most that goes to snapshots, at most two for each sequence. Refuses, with
// the numbers, a budget in which not even one sequence of max_model_len fits.
base::Result<KvPlan> plan_kv(const KvPlanInput& input);

// A cache too small for what was asked still serves, but nobody should have to find out why it is
// slow: what to tell, or nothing. asked_bytes: of --kv-cache-gib; a card may have left less.
std::string few_sequences_warning(const KvPlan& plan, int64_t asked_bytes);

}  // namespace tandem::engine
