// The hand-over of one draft, for the kernels that do it.
#pragma once

#include "ops/cuda/accept.h"

namespace tandem::ops::cuda {

// One thread, for one entry. `guess` < 0: not finite.
__device__ inline void take_draft(const DraftToken& op, int entry, int guess) {
  if (entry >= op.num_entries) return;
  const int made = op.step == 0 ? 0 : op.num_drafts[entry];
  const int wanted = op.wanted[entry];
  const bool takes = made == op.step && op.step < wanted && guess >= 0;
  if (takes) {
    op.num_drafts[entry] = op.step + 1;
  } else if (op.step == 0) {
    op.num_drafts[entry] = 0;
  }
  const int token = takes ? guess : 0;
  if (op.step < wanted) op.tokens[op.first_rows[entry] + 1 + op.step] = token;
  op.assistant_tokens[entry] = token;
}

}  // namespace tandem::ops::cuda
