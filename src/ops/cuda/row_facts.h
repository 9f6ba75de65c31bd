// What the host wants to know of rows of logits to choose their tokens: mostly it then does not
// need the rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/likeliest.h"

namespace tandem::ops::cuda {

inline constexpr int kMaxAsked = 64;
inline constexpr int kContenders = 16;

// How a sequence draws among all tokens: the largest logit * inverse_temperature + noise wins, the
// noise that of sampling/rng.h for (seed, position, id).
struct Draw {
  uint64_t seed;
  float inverse_temperature;  // 0: it does not
  int32_t unused;
};

struct RowFacts {
  Likeliest likeliest;     // kLikeliest tokens; its status is never -1
  float sum;               // of exp(logit - largest logit) over the row
  float target_logit;      // of the row's target
  int32_t target_rank;     // tokens that come before it
  float asked[kMaxAsked];  // logits of the ids asked for; NaN where none is
  // Of a row that draws: the tokens ahead in it, best first, as far as FP32 tells; no other token
  // has a score above the last one's. Fewer than kContenders when that is all.
  int32_t num_contenders;
  float last_score;
  float contender_logits[kContenders];
  int32_t contender_ids[kContenders];
  // Of a row that draws: sums of exp((logit - largest logit) * inverse_temperature), of all tokens
  // and of those that are likelier than a contender or as likely with a lower id.
  float weight;
  float weight_before[kContenders];
};

// Pointers to what is asked may be null.
struct RowFactsJob {
  int num_rows = 0;
  int vocab_size = 0;                  // at most kMaxVocab
  const float* logits = nullptr;       // [num_rows, vocab_size], 16-byte aligned
  const int32_t* targets = nullptr;    // [num_rows] an id, or -1
  const int32_t* sequences = nullptr;  // [num_rows] row of `asked` and `draws`, or -1
  const int32_t* asked = nullptr;      // [num_sequences, kMaxAsked] ids, or -1
  const Draw* draws = nullptr;         // [num_sequences]
  const int32_t* positions = nullptr;  // [num_rows] of the row: what is drawn comes behind it
};

// out [num_rows]; scratch: row_facts_scratch_bytes(), no need to clear it. Sums are taken in an
// order that depends on vocab_size alone.
size_t row_facts_scratch_bytes(int num_rows, int vocab_size);
void row_facts(const Stream& stream, const RowFactsJob& job, void* scratch, RowFacts* out);

// out[i] = row[ids[i]]. ids and out may be page-locked memory of the host.
void gather_logits(const Stream& stream, const float* row, const int32_t* ids, int count,
                   float* out);

}  // namespace tandem::ops::cuda
