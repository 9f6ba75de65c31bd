// The vector backend: signatures and meaning of ops/<op>.h, arguments checked by the caller. Splits
// work over the context's threads and calls the kernels of isa().
#pragma once

#include "ops/activation.h"
#include "ops/argmax.h"
#include "ops/attention.h"
#include "ops/context.h"
#include "ops/cpu/isa.h"
#include "ops/embed.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace tandem::ops::cpu {

void linear(const Context& context, const core::TensorView& x,
            std::span<const LinearWeight> weights, std::span<const core::TensorView> outputs);

void rms_norm(const Context& context, const core::TensorView& x, const core::TensorView& weight,
              float eps, const core::TensorView& out);
void add_rms_norm(const Context& context, const core::TensorView& branch,
                  const core::TensorView& weight, float eps, float scale,
                  const core::TensorView& residual);

void gelu_mul(const Context& context, const core::TensorView& gate, const core::TensorView& up,
              const core::TensorView& out);
void softcap(const Context& context, float cap, const core::TensorView& logits);
// out[i] = x[indices[i]] * scale; no indices: rows in order.
void scaled_rows(const Context& context, const core::TensorView& x,
                 std::span<const int32_t> indices, float scale, const core::TensorView& out);
void rope(const Context& context, const core::TensorView& cos, const core::TensorView& sin,
          const core::TensorView& x);

void kv_write(const Context& context, const core::TensorView& k, const core::TensorView& v,
              std::span<const int32_t> sequences, std::span<const int32_t> positions,
              const KvPlaces& places, const KvView& kv);
void attention(const Context& context, const core::TensorView& q,
               std::span<const int32_t> sequences, std::span<const int32_t> last_keys,
               int64_t window, const KvPlaces& places, const KvView& kv,
               const core::TensorView& out);

void argmax(const Context& context, const core::TensorView& logits,
            std::span<const int32_t> suppressed, std::span<int32_t> tokens);

}  // namespace tandem::ops::cpu
