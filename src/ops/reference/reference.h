// The specification of every op: plain loops, FP32 accumulation in index order. Signatures and
// meaning are those of ops/<op>.h; arguments have been checked.
#pragma once

#include "ops/activation.h"
#include "ops/argmax.h"
#include "ops/attention.h"
#include "ops/context.h"
#include "ops/embed.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace tandem::ops::reference {

void linear(const Context& context, const core::TensorView& x, const LinearWeight& weight,
            const core::TensorView& output);

void rms_norm(const core::TensorView& x, const core::TensorView& weight, float eps,
              const core::TensorView& out);
void add_rms_norm(const core::TensorView& branch, const core::TensorView& weight, float eps,
                  float scale, const core::TensorView& residual);

void gelu_mul(const core::TensorView& gate, const core::TensorView& up,
              const core::TensorView& out);
void softcap(float cap, const core::TensorView& logits);
void gather_rows(const core::TensorView& x, std::span<const int32_t> indices,
                 const core::TensorView& out);
void embed(std::span<const int32_t> ids, const core::TensorView& table, float scale,
           const core::TensorView& out);
void rope(const core::TensorView& cos, const core::TensorView& sin, const core::TensorView& x);

void kv_write(const core::TensorView& k, const core::TensorView& v,
              std::span<const int32_t> sequences, std::span<const int32_t> positions,
              const KvPlaces& places, const KvView& kv);
void attention(const Context& context, const core::TensorView& q,
               std::span<const int32_t> sequences, std::span<const int32_t> last_keys,
               int64_t window, const KvPlaces& places, const KvView& kv,
               const core::TensorView& out);

void argmax(const core::TensorView& logits, std::span<const int32_t> suppressed,
            std::span<int32_t> tokens);

}  // namespace tandem::ops::reference
