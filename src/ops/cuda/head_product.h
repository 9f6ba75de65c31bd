// A head's product and its argmax in one kernel over at most eight rows: logits stay in registers,
// and nothing but each row's token is written. Tokens are those of product() and argmax_rows().
#pragma once

#include "ops/cuda/head.h"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/row_product.h"

namespace tandem::ops::cuda {

inline constexpr int kMaxHeadRows = 8;
inline constexpr int kMaxHeadSuppressed = 64;

// What comes of it. logits.sums counts for nothing; at most kMaxHeadSuppressed ids are suppressed.
struct HeadArgmax {
  HeadLogits logits;
  void* scratch = nullptr;    // argmax_scratch_bytes(logits.num_rows), as for argmax_rows()
  int32_t* tokens = nullptr;  // [logits.num_rows]
  DraftToken draft;           // draft.tokens null: none
  void* exchange = nullptr;   // head_exchange_bytes(); zeros at first, every use leaves it so
};

// Another product of the same rows, of the head's type, or BF16 where only the head is FP8: its
// partial sums, as product() leaves them for 8 rows.
struct SideProduct {
  const PackedLinear* weight = nullptr;  // null: none
  float* partials = nullptr;
};

// Whether no set belongs to more than two shares and the rows fit; and whether these logits do.
bool takes_head_product(const PackedLinear& head, const SideProduct& side);
bool takes_head_product(const PackedLinear& head, const SideProduct& side,
                        const HeadLogits& logits);
size_t head_exchange_bytes(const PackedLinear& head);

void head_product(const Stream& stream, const PackedLinear& head, const SideProduct& side,
                  const void* operand, const HeadArgmax& argmax);
// With the norm that makes the operand; logits.num_rows <= kFewRows.
void head_product(const Stream& stream, const PackedLinear& head, const SideProduct& side,
                  const NormedRows& rows, const HeadArgmax& argmax);

}  // namespace tandem::ops::cuda
