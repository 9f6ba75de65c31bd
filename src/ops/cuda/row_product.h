// The products of a draft step's layers, for so few rows that every thread block makes their
// operand itself: the norm before a product, or the assistant's input, needs no kernel of its own.
// A thread block copies its whole share of the weights before it waits for the kernels in front.
// A row's bits are those of product() behind residual_norm(), start_layer() or assistant_input(),
// and before gelu_operand().
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/row_ops.h"

namespace tandem::ops::cuda {

// More rows are faster the other way: each costs every thread block a norm.
inline constexpr int kFewRows = 2;
inline constexpr int kMaxNormedHidden = 1024;

// residual_norm(), or start_layer() with post_weight null, as the input of a product.
struct NormedRows {
  int hidden = 0;
  Partials sums;  // of [hidden] features
  float scale = 1.0F;
  const uint16_t* post_weight = nullptr;  // [hidden] BF16
  float eps = 0.0F;
  float layer_scalar = 1.0F;
  const uint16_t* x = nullptr;       // [num_rows, hidden], the residual before
  uint16_t* new_x = nullptr;         // and after it, elsewhere; null: not wanted
  const uint16_t* weight = nullptr;  // [hidden] BF16
  float next_eps = 0.0F;
  float input_scale = 0.0F;
};
// Whether rows are short, and sums of few pieces.
bool takes_normed_rows(const Partials& sums, int hidden);

// What is left: partial sums as product() leaves them for 8 rows, or with `joined.data` the operand
// of bf16(bf16(gelu_tanh(gate)) * up). Not where any thread block of the product reads.
struct RowResults {
  float* partials = nullptr;
  float gate_scale = 1.0F;
  float up_scale = 1.0F;
  Operand joined = {};
};

// Whether a share fits into shared memory, and no set of a gated weight has two shares.
bool takes_row_product(const PackedLinear& weight);

// num_rows <= kFewRows. Rows of the operand, a tile of 8.
void row_product(const Stream& stream, const PackedLinear& weight, const void* operand,
                 int num_rows, const RowResults& results);
void row_product(const Stream& stream, const PackedLinear& weight, const NormedRows& rows,
                 int num_rows, const RowResults& results);
// rows.num_rows rows; of its operand only the scale counts.
void row_product(const Stream& stream, const PackedLinear& weight, const AssistantInput& rows,
                 const RowResults& results);

}  // namespace tandem::ops::cuda
