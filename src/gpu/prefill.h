// Prompts: their rows go through the target many at a time, in kernels of their own
// (ops/cuda/wide_*), which read the same weights and fill the same KV cache. Whether a row does
// depends on the row alone, not on its chunk, so its bits are the same however a prompt is cut.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.h"
#include "gpu/layer.h"
#include "gpu/step_plan.h"
#include "io/model_config.h"
#include "ops/cuda/wide_product.h"
#include "ops/cuda/wide_rows.h"

namespace tandem::gpu {

// Most rows of one pass; a multiple of kWideRowStep.
inline constexpr int64_t kMaxWideRows = 2048;
constexpr int64_t wide_capacity(int64_t max_step_rows) {
  const int64_t rounded = ops::cuda::whole_wide_tiles(max_step_rows);
  return rounded < kMaxWideRows ? rounded : kMaxWideRows;
}

// Widths of what one pass needs, largest over the layers.
struct WideSizes {
  int64_t hidden = 0;
  int64_t product = 0;       // [rows, product] BF16: q, k, v; what o and down give
  int64_t q_dim = 0;         // num_heads * head_dim
  int64_t intermediate = 0;  // of the feed-forward block
  int64_t chunk = 0;         // num_kv_heads * head_dim of sliding layers
  // The same of full layers whose keys are widened once for a pass, if not too many, and how many
  // there is room for; 0: none.
  int64_t widened = 0;
  int64_t widened_rows = 0;

  // Of a workspace for sequences of this length, or shorter ones.
  int64_t most_bytes(int64_t capacity) const;
};
// Whether the layer's keys are widened once for a pass, where they are E4M3.
bool widens_keys(const io::LayerConfig& layer, int64_t num_heads);
// kv_dtype: of the cache. max_model_len: most tokens of a sequence.
WideSizes wide_sizes(const io::TextConfig& target, core::DType kv_dtype, int64_t max_model_len);

struct WideWorkspace {
  WideWorkspace(const WideSizes& sizes, int64_t max_step_rows, int num_sms);

  ops::cuda::WideOperand operand_for(float input_scale) const {
    return {operand.as<uint8_t>(), capacity, input_scale};
  }
  ops::cuda::WideOperand inner_operand_for(float input_scale) const {
    return {inner_operand.as<uint8_t>(), capacity, input_scale};
  }

  int capacity;  // rows
  int num_multiprocessors;
  ops::cuda::DeviceBuffer x;              // [capacity, hidden] BF16, the residual
  ops::cuda::DeviceBuffer product;        // of the last product
  ops::cuda::DeviceBuffer q;              // [capacity, q_dim] BF16
  ops::cuda::DeviceBuffer chunk_k;        // [capacity, chunk] BF16: of the pass's rows
  ops::cuda::DeviceBuffer chunk_v;        // [capacity, chunk] BF16
  ops::cuda::DeviceBuffer operand;        // of q, k, v; of o; of gate, up
  ops::cuda::DeviceBuffer inner_operand;  // of down
  ops::cuda::DeviceBuffer hidden;         // [capacity, hidden] BF16, after the final norm
  int64_t widened_rows;                   // room for the keys of so many positions; 0: none
  ops::cuda::DeviceBuffer widened_k;      // [widened_rows, num_kv_heads * head_dim] BF16
  ops::cuda::DeviceBuffer widened_v;
};

// Rows of a pass of prompts, and the block tables they look their keys up in.
struct WidePass {
  ops::cuda::Rows rows;
  ops::cuda::WideTiles tiles;
  ops::cuda::KvTable ring;
  ops::cuda::KvTable pages;
  std::span<const PlannedWideGroup> groups;  // of tiles, where keys are widened
};

// Whether the card has the kernels for prompts, and these know such layers: FP8 weights and a
// layout that they can cut.
bool runs_wide(const std::vector<LayerWeights>& layers);

// One layer. Expects the normed input as the operand and the residual in x; leaves both for the
// next layer, or the normed rows in `hidden` after the last one (next.normed_rows).
void run_wide_layer(const ops::cuda::Stream& stream, const LayerWeights& layer, float eps,
                    const WidePass& pass, const ops::cuda::KvLayer& kv, const NextInput& next,
                    const WideWorkspace& workspace);

}  // namespace tandem::gpu
