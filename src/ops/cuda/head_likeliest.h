// The likeliest tokens of rows through a head's screen: bit for bit those that full_logits() and
// row_facts() would find, suppressed ids among them, for the bytes of the 8-bit copy. The
// N-th largest logit is guessed from the screen, a little too small. Whoever may reach the guess
// (head_screen.h) gets its logit from the head, in the order of sums of product(). Where N of them
// do, the first N are the row's: all others come behind.
#pragma once

#include "ops/cuda/head_screen.h"
#include "ops/cuda/likeliest.h"

namespace tandem::ops::cuda {

struct HeadLikeliest {
  HeadLogits logits;               // as in HeadArgmax; scale 1, and who is suppressed is not asked
  int num_likeliest = kLikeliest;  // N, 1 .. kLikeliest
  void* workspace = nullptr;       // likeliest_workspace_bytes()
  void* exchange = nullptr;        // of up to eight rows: head_exchange_bytes(screen)
  Likeliest* out = nullptr;        // [logits.num_rows]
};

size_t likeliest_workspace_bytes(const PackedLinear& screen);

// Up to eight rows of a head that takes_screened_head(). A row's status is -1 where too many ids
// are in doubt: of one that is not finite, of zeros, or where thousands of logits are closer to
// each other than the screen can tell.
void screened_likeliest(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                        const SideProduct& side, const void* operand, const HeadLikeliest& job);
void screened_likeliest(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                        const SideProduct& side, const NormedRows& rows, const HeadLikeliest& job);

// The same for more rows, of a head that takes_screened_rows(), 32 at most. operand and partials as
// there.
bool takes_likeliest_rows(const PackedLinear& head, const PackedLinear& screen, int num_tiles);
void screened_likeliest_rows(const Stream& stream, const PackedLinear& head,
                             const HeadScreen& screen, const void* operand, int num_tiles,
                             float* partials, const HeadLikeliest& job);

}  // namespace tandem::ops::cuda
