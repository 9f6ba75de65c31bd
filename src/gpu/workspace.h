// Activations of one pass on the device, shared by every layer of a model and by both models: a
// kernel reads what the one before it left, and writes for the next.
#pragma once

#include <cstdint>

#include "gpu/step_plan.h"
#include "ops/cuda/device.h"
#include "ops/cuda/operand.cuh"
#include "ops/cuda/packed_linear.h"

namespace tandem::gpu {

inline constexpr int kMaxPassRows = kPassRows;
static_assert(kMaxPassRows == ops::cuda::kMaxProductRows);
// Lists of attention that layers share: of sliding layers and of full ones.
inline constexpr int kMaxLists = 2;

struct WorkspaceSizes {
  int64_t hidden = 0;         // largest of the models
  int64_t q_dim = 0;          // num_heads * head_dim
  int64_t operand_width = 0;  // in_features of any product
  int64_t partial_bytes = 0;  // of any product at kMaxPassRows
  int64_t attention_bytes = 0;
  int64_t inner_width = 0;     // intermediate size of any layer
  int64_t exchange_bytes = 0;  // of any gelu_product() at kMaxPassRows

  void cover(const WorkspaceSizes& other);
};

struct Workspace {
  explicit Workspace(const WorkspaceSizes& sizes);

  ops::cuda::DeviceBuffer x;  // [kMaxPassRows, hidden] BF16, the residual
  // [kFewRows, hidden] BF16, the same where a kernel reads the one and writes the other.
  ops::cuda::DeviceBuffer other_x;
  ops::cuda::DeviceBuffer q;          // [kMaxPassRows, q_dim] BF16
  ops::cuda::DeviceBuffer operand;    // of the next product
  ops::cuda::DeviceBuffer inner;      // operand of down: gate and up are read while it is written
  ops::cuda::DeviceBuffer partials;   // of the last product
  ops::cuda::DeviceBuffer attention;  // partial results of one attention
  ops::cuda::DeviceBuffer next_item;  // of attention: one integer
  ops::cuda::DeviceBuffer lists;      // of attention: a step's, see list_attention()
  ops::cuda::DeviceBuffer exchange;   // of gelu_product()

  ops::cuda::Operand operand_for(int num_rows, float input_scale) const {
    return {operand.data(), num_rows / 8, input_scale};
  }
  ops::cuda::Operand inner_operand_for(int num_rows, float input_scale) const {
    return {inner.data(), num_rows / 8, input_scale};
  }
};

}  // namespace tandem::gpu
