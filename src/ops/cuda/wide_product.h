// The product of many rows, bound by the tensor cores: prompts. It takes the packed weights that
// the product of few rows takes (packed_linear.h), so a model is on the device once.
//
// E4M3 x E4M3 in the tensor cores, whose sums keep about 14 bits: they are moved to FP32 every 128
// inputs (kWideSumInputs), in index order. Where they are moved depends on nothing else, so a row
// has the same bits alone and in any company.
#pragma once

#include <array>
#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/wide_operand.cuh"

namespace tandem::ops::cuda {

inline constexpr int kWideSumInputs = 128;

// Rows [num_rows, in_features] BF16 as an operand: for tests, and inputs that no kernel made.
void rows_to_wide_operand(const Stream& stream, const uint16_t* rows, int num_rows, int in_features,
                          const WideOperand& operand);

// How many rows a thread block takes at a time: 64, 128 or 256; 0: whichever is fastest.
struct WideTiling {
  int tile_rows = 0;
  int num_multiprocessors = 132;
};

// out [num_rows, out_features] BF16 = bf16(sum * scale), of parts of output features that end at
// `ends` (multiples of 16, the last is out_features).
struct WideParts {
  std::array<int, 3> ends = {};
  std::array<float, 3> scales = {1.0F, 1.0F, 1.0F};
};
void wide_product(const Stream& stream, const PackedLinear& weight, const WideOperand& operand,
                  int num_rows, const WideParts& parts, uint16_t* out,
                  const WideTiling& tiling = {});

// The two products of the feed-forward block and what joins them: the weight is gated, its
// intermediate size a multiple of 64. g = bf16(gate sum * gate_scale), u likewise; out is the
// operand of bf16(bf16(gelu_tanh(g)) * u).
struct WideGelu {
  float gate_scale = 1.0F;
  float up_scale = 1.0F;
  WideOperand out;
};
void wide_gelu_product(const Stream& stream, const PackedLinear& weight, const WideOperand& operand,
                       int num_rows, const WideGelu& gelu, const WideTiling& tiling = {});

}  // namespace tandem::ops::cuda
