// A head's product and its argmax in one kernel, over more rows than head_product() takes: logits
// stay in registers, and nothing but each row's token is written. Tokens are those of product() and
// argmax_rows().
#pragma once

#include "ops/cuda/head_product.h"

namespace tandem::ops::cuda {

// Whether every set of the head belongs to one share, and these rows and logits fit.
bool takes_head_argmax(const PackedLinear& head, int num_tiles, const HeadLogits& logits);

// operand: num_tiles tiles of 8 rows as for product(), 2 at least. argmax.exchange counts for
// nothing.
void head_argmax(const Stream& stream, const PackedLinear& head, const void* operand, int num_tiles,
                 const HeadArgmax& argmax);

}  // namespace tandem::ops::cuda
