// The hand-over of one draft, for the kernels that do it.
#pragma once

#include "ops/cuda/accept.h"

namespace tandem::ops::cuda {

// What a hand-over depends on besides the guess: earlier kernels made it, so it can be read while
// the guess is not there yet.
struct DraftPlace {
  int made = 0;
  int wanted = 0;
  int first_row = 0;
};
// After the wait for earlier kernels; not from L1, where a line may be older than they are.
__device__ inline DraftPlace draft_place(const DraftToken& op, int entry) {
  if (op.tokens == nullptr || entry >= op.num_entries) return {};
  return {op.step == 0 ? 0 : __ldcg(op.num_drafts + entry), __ldcg(op.wanted + entry),
          __ldcg(op.first_rows + entry)};
}

// One thread, for one entry. `guess` < 0: not finite.
__device__ inline void take_draft(const DraftToken& op, int entry, const DraftPlace& place,
                                  int guess) {
  if (entry >= op.num_entries) return;
  const bool takes = place.made == op.step && op.step < place.wanted && guess >= 0;
  if (takes) {
    op.num_drafts[entry] = op.step + 1;
  } else if (op.step == 0) {
    op.num_drafts[entry] = 0;
  }
  const int token = takes ? guess : 0;
  if (op.step < place.wanted) op.tokens[place.first_row + 1 + op.step] = token;
  op.assistant_tokens[entry] = token;
}

}  // namespace tandem::ops::cuda
