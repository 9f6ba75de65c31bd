#include "gpu/workspace.h"

#include <algorithm>

#include "ops/cuda/attention.h"
#include "ops/cuda/row_product.h"

namespace tandem::gpu {

void WorkspaceSizes::cover(const WorkspaceSizes& other) {
  hidden = std::max(hidden, other.hidden);
  q_dim = std::max(q_dim, other.q_dim);
  operand_width = std::max(operand_width, other.operand_width);
  partial_bytes = std::max(partial_bytes, other.partial_bytes);
  attention_bytes = std::max(attention_bytes, other.attention_bytes);
  inner_width = std::max(inner_width, other.inner_width);
  exchange_bytes = std::max(exchange_bytes, other.exchange_bytes);
}

Workspace::Workspace(const WorkspaceSizes& sizes)
    : x(static_cast<size_t>(kMaxPassRows * sizes.hidden * 2)),
      other_x(static_cast<size_t>(ops::cuda::kFewRows * sizes.hidden * 2)),
      q(static_cast<size_t>(kMaxPassRows * sizes.q_dim * 2)),
      operand(static_cast<size_t>(kMaxPassRows * sizes.operand_width * 2)),
      inner(static_cast<size_t>(kMaxPassRows * sizes.inner_width * 2)),
      partials(static_cast<size_t>(sizes.partial_bytes)),
      attention(static_cast<size_t>(sizes.attention_bytes)),
      next_item(sizeof(int)),
      lists(kMaxLists * ops::cuda::attention_list_bytes()),
      exchange(static_cast<size_t>(sizes.exchange_bytes)) {
  // Products read padding rows, which nobody may have written. Flags of the exchange and
  // the item begin at zero.
  for (const auto* buffer : {&x, &other_x, &q, &operand, &inner, &next_item, &exchange})
    TANDEM_CUDA_CHECK(cudaMemset(buffer->data(), 0, buffer->size_bytes()));
}

}  // namespace tandem::gpu
