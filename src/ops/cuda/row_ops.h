// The small kernels between the products of a layer: embedding, norms with the residual, the
// activation. Each takes partial sums where the product left them and writes the operand of the
// next product. Arithmetic and roundings are those of ops/embed.h, rms_norm.h and activation.h on
// BF16 activations; a row's bits depend on that row alone.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/operand.cuh"
#include "ops/cuda/partials.cuh"

namespace tandem::ops::cuda {

// Rows are [num_rows, hidden] BF16 and dense; hidden is a multiple of 32.
inline constexpr int kMaxHidden = 8192;

// The token embedding: a packed BF16 weight (packed_linear.h), which may be the head as well.
struct EmbedTable {
  const uint8_t* data = nullptr;
  int set_blocks = 1;  // hidden / 32
  float scale = 1.0F;  // sqrt(hidden) rounded to BF16
};

// What follows the residual: bf16(rms(x) * weight) as an operand, as rows, or both.
struct NextNorm {
  const uint16_t* weight = nullptr;  // [hidden] BF16
  float eps = 1e-6F;
  Operand operand;             // data null: none
  uint16_t* normed = nullptr;  // [num_rows, hidden] BF16; null: none
};

// x = bf16(embedding * scale) of each row's token, then its norm. tokens [num_rows], each in the
// table.
struct EmbedNorm {
  int num_rows = 0;
  int hidden = 0;
  const int32_t* tokens = nullptr;
  EmbedTable table;
  uint16_t* x = nullptr;  // [num_rows, hidden], written
  NextNorm next;
};
void embed_norm(const Stream& stream, const EmbedNorm& op);

// In how many runs start_layer and residual_norm add the pieces of a sum: each in order, then their
// sums in order. More than one where a short row has many pieces.
int piece_groups(const Partials& sums, int hidden);

// x = bf16(sum * scale), then its norm: the assistant's first layer after pre_projection.
struct StartLayer {
  int num_rows = 0;
  int hidden = 0;
  Partials sums;  // of [hidden] features
  float scale = 1.0F;
  uint16_t* x = nullptr;  // [num_rows, hidden], written
  NextNorm next;
};
void start_layer(const Stream& stream, const StartLayer& op);

// The end of a sub-block: y = bf16(sum * scale), x = bf16(x + bf16(rms(y) * post_weight)),
// x = bf16(x * layer_scalar), then the next norm. After attention the scalar is 1.
struct ResidualNorm {
  int num_rows = 0;
  int hidden = 0;
  Partials sums;  // of [hidden] features
  float scale = 1.0F;
  const uint16_t* post_weight = nullptr;  // [hidden] BF16
  float eps = 1e-6F;
  float layer_scalar = 1.0F;
  uint16_t* x = nullptr;  // [num_rows, hidden], the residual, updated
  NextNorm next;
};
void residual_norm(const Stream& stream, const ResidualNorm& op);

// g = bf16(gate sum * gate_scale), u likewise; the operand of down is bf16(bf16(gelu_tanh(g)) * u).
// sums: of gate and up features in the order of gated_feature(). intermediate is a multiple of 32.
struct GeluOperand {
  int num_rows = 0;
  int intermediate = 0;
  Partials sums;
  float gate_scale = 1.0F;
  float up_scale = 1.0F;
  Operand operand;
};
void gelu_operand(const Stream& stream, const GeluOperand& op);

// concat(bf16(embedding * scale), state) of each row as the operand of pre_projection: features
// 0 .. hidden-1 and hidden .. 2 hidden-1. The state of row r is row slots[r] of `states` (slots
// null: row r; slot -1: zeros), or, with `states` null, bf16(sum * state_scale) of the
// post_projection before.
struct AssistantInput {
  int num_rows = 0;
  int hidden = 0;                   // of the target
  const int32_t* tokens = nullptr;  // [num_rows]
  EmbedTable table;
  const uint16_t* states = nullptr;  // [num_slots, hidden] BF16
  const int32_t* slots = nullptr;    // [num_rows]
  Partials state_sums;               // of [hidden] features
  float state_scale = 1.0F;
  Operand operand;
};
void assistant_input(const Stream& stream, const AssistantInput& op);

// states[r] = bf16(sum * scale): what post_projection made, for whoever wants it as rows.
struct StoreState {
  int num_rows = 0;
  int hidden = 0;
  Partials sums;  // of [hidden] features
  float scale = 1.0F;
  uint16_t* states = nullptr;  // [num_rows, hidden] BF16
};
void store_state(const Stream& stream, const StoreState& op);

}  // namespace tandem::ops::cuda
