// What is made of a head's product: the greedy token, or the whole row of logits. Row r of `sums`
// is row r here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/cuda/accept.h"
#include "ops/cuda/device.h"
#include "ops/cuda/partials.cuh"

namespace tandem::ops::cuda {

inline constexpr int kMaxVocab = 1 << 20;

// The logits of a row: sum * scale, then cap * tanh(x / cap) if cap > 0, in FP32. The cap is kept
// even where only the order counts: large logits become equal under it, and the lower id wins.
struct HeadLogits {
  Partials sums;
  int num_rows = 0;  // rows whose logits are wanted, from row 0
  int vocab_size = 0;
  float scale = 1.0F;
  const float* scales = nullptr;  // [vocab_size, in whole sets] of each token, instead of `scale`
  float cap = 0.0F;
  // Ids that are never chosen, in any order. They count for what is finite. Constant while kernels
  // that read them may run.
  const int32_t* suppressed = nullptr;  // [num_suppressed]
  int num_suppressed = 0;
};

// Scratch of the reductions over a row's blocks, zero before its first use; every use leaves zeros.
size_t argmax_scratch_bytes(int num_rows);

// tokens[r]: as ops/argmax.h says of these logits. With `draft`, row r is entry r of it and the
// token is handed over as its next draft (accept.h), without a launch of its own.
void argmax_rows(const Stream& stream, const HeadLogits& head, void* scratch, int32_t* tokens,
                 const DraftToken* draft = nullptr);

// out[i] = the logits of row rows[i] (rows null: i). out [num_out, vocab_size] FP32, 16-byte
// aligned; suppressed ids are as the model gave them.
void full_logits(const Stream& stream, const HeadLogits& head, const int32_t* rows, int num_out,
                 float* out);

}  // namespace tandem::ops::cuda
