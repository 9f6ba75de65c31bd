// One transformer layer on the GPU: a chain of kernels over the rows of a pass. The arithmetic is
// that of model/transformer_layer.h on BF16 activations, which is its specification.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "gpu/weights.h"
#include "gpu/workspace.h"
#include "io/checkpoint.h"
#include "ops/cuda/rows.h"

namespace tandem::gpu {

struct LayerWeights {
  io::LayerConfig config;
  int num_heads = 0;
  int window = 0;         // 0: full attention
  bool writes_kv = true;  // targets; an assistant reads its target's
  float layer_scalar = 1.0F;
  float query_scale = 1.0F;  // ops::cuda::Attention::query_scale
  Projection qkv, o, gate_up, down;
  ops::cuda::DeviceBuffer q_norm, k_norm;                   // [head_dim] BF16
  ops::cuda::DeviceBuffer input_norm, post_attention_norm;  // [hidden] BF16
  ops::cuda::DeviceBuffer pre_feedforward_norm, post_feedforward_norm;
  ops::cuda::DeviceBuffer inv_freq;  // [head_dim / 2] F32
};

base::Result<LayerWeights> load_layer(WeightUploader& uploader, const io::Checkpoint& checkpoint,
                                      int64_t index);

// What a layer leaves for the next one: its norm, and where the normed rows go.
struct NextInput {
  const uint16_t* norm = nullptr;   // [hidden] BF16
  float input_scale = 0.0F;         // of the next product's operand
  uint16_t* normed_rows = nullptr;  // [num_rows, hidden] BF16, or null
};

// Rows of one pass and where their keys and values are.
struct LayerPass {
  ops::cuda::Rows rows;
  int real_rows = 0;  // before the padding, which kernels of single rows leave out
  ops::cuda::QueryTiles tiles;
  ops::cuda::KvTable places;
  ops::cuda::KvLayer kv;
  int max_keys = 0;  // no row sees more keys than this
  int list = -1;     // of attention, in the workspace; -1: thread blocks work it out
};

// Steps of a layer, for who runs it with other products. The head norms, the rotation and the KV
// cache, from what the product of q, k and v left:
void prepare_heads(const ops::cuda::Stream& stream, const LayerWeights& layer, float eps,
                   const LayerPass& pass, const ops::cuda::Partials& product, Workspace& workspace);
// Attention; leaves the operand of o, `num_tiles` tiles of 8 rows.
void attend(const ops::cuda::Stream& stream, const LayerWeights& layer, const LayerPass& pass,
            int num_tiles, Workspace& workspace);
// Fills the list that pass.list names, for all such layers of the pass.
void list_attention(const ops::cuda::Stream& stream, const LayerWeights& layer,
                    const LayerPass& pass, int num_tiles, Workspace& workspace);
// Both in one where attention makes the queries (attention_makes_queries()): a model that writes
// no keys. A tile of 8 rows.
void attend_sums(const ops::cuda::Stream& stream, const LayerWeights& layer, float eps,
                 const LayerPass& pass, const ops::cuda::Partials& product, Workspace& workspace);

// Expects the normed input as the operand in the workspace and the residual in workspace.x; leaves
// both for the next layer.
void run_layer(const ops::cuda::Stream& stream, const LayerWeights& layer, float eps,
               const LayerPass& pass, const NextInput& next, Workspace& workspace);

}  // namespace tandem::gpu
