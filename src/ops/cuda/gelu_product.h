// The two products of a feed-forward block and what joins them, in one kernel over few rows.
//
// A thread block's share of the weights (packed_linear.h) begins and ends within sets, so a set may
// belong to two blocks. Blocks go through their sets from the last to the first: what a block has
// of the set it shares with the next one it leaves in memory at once, and when that one comes to
// this set, its last, it is long there. Bits are those of a sum in pieces, whatever the rows.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/operand.cuh"
#include "ops/cuda/packed_linear.h"

namespace tandem::ops::cuda {

// g = bf16(gate sum * gate_scale), u likewise; out is the operand of bf16(bf16(gelu_tanh(g)) * u):
// what product() and gelu_operand() give.
struct GeluProduct {
  float gate_scale = 1.0F;
  float up_scale = 1.0F;
  Operand out;               // not the operand that is multiplied
  void* exchange = nullptr;  // gelu_exchange_bytes(); zeros at first, every product leaves it so
};

// Whether no set of a gated weight belongs to more than two thread blocks.
bool takes_gelu_product(const PackedLinear& weight);
size_t gelu_exchange_bytes(const PackedLinear& weight, int num_rows);

// `num_tiles` as for product().
void gelu_product(const Stream& stream, const PackedLinear& weight, const void* operand,
                  int num_tiles, const GeluProduct& gelu);

}  // namespace tandem::ops::cuda
